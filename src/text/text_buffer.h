// A text on its way through the normalisers, with each byte's place in the text it came from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

/// Valid UTF-8 with, where `tracked`, the source offset of every byte. A value type.
class TextBuffer {
 public:
  /// Starts as `text`; offsets begin at `base`.
  TextBuffer(std::string_view text, bool tracked, uint32_t base) : text_(text), tracked_(tracked) {
    if (!tracked_) return;
    origins_.resize(text.size());
    for (size_t i = 0; i < text.size(); ++i) origins_[i] = base + static_cast<uint32_t>(i);
  }

  std::string_view text() const { return text_; }
  bool tracked() const { return tracked_; }
  /// Source offset of byte i. REQUIRES: tracked() and i < text().size().
  uint32_t origin(size_t i) const { return origins_[i]; }

  /// Builds the next stage: what is appended to `rewrite` replaces the buffer when it is installed.
  class Rewrite {
   public:
    explicit Rewrite(const TextBuffer& source) : source_(&source) { text_.reserve(source.text_.size() + 16); }
    /// Copies bytes [begin, end) of the source.
    void Copy(size_t begin, size_t end) {
      text_.append(source_->text_, begin, end - begin);
      if (source_->tracked_) {
        origins_.insert(origins_.end(), source_->origins_.begin() + static_cast<std::ptrdiff_t>(begin),
                        source_->origins_.begin() + static_cast<std::ptrdiff_t>(end));
      }
    }
    /// Appends new bytes that stand for byte `from` of the source.
    void Put(std::string_view bytes, size_t from) {
      text_.append(bytes);
      Extend(from);
    }
    /// The text to append to directly; call Extend afterwards.
    std::string& text() { return text_; }
    /// Gives every byte appended to text() since the last call the origin of the source's byte `from`.
    void Extend(size_t from) {
      if (!source_->tracked_) return;
      const uint32_t origin = source_->origins_.empty()         ? 0
                              : from < source_->origins_.size() ? source_->origins_[from]
                                                                : source_->origins_.back();
      origins_.resize(text_.size(), origin);
    }

    /// Lets what was written first stand for the beginning of the source.
    void AnchorStart() {
      if (!origins_.empty()) origins_.front() = source_->origins_.front();
    }

   private:
    friend class TextBuffer;
    const TextBuffer* source_;
    std::string text_;
    std::vector<uint32_t> origins_;
  };

  void Install(Rewrite&& next) {
    text_ = std::move(next.text_);
    origins_ = std::move(next.origins_);
  }

 private:
  std::string text_;
  std::vector<uint32_t> origins_;
  bool tracked_;
};

}  // namespace kvasir
