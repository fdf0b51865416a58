// Strings that remember which of their bytes came from outside.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja_budget.h"
#include "text/tokenizer.h"

namespace kvasir::jinja {

/// An immutable UTF-8 string with its tainted ranges: the bytes that came from messages or variables and not from the
/// template. Copying shares the text. Thread-safe to read.
class Str {
 public:
  Str() = default;
  /// Text of the template itself, or made by an operation that keeps nothing of its input's wording.
  static Str Trusted(std::string text);
  /// Text from outside: tainted as a whole.
  static Str Outside(std::string text);
  /// REQUIRES: taint is sorted, disjoint and within text.
  Str(std::string text, std::vector<ByteRange> taint);

  std::string_view view() const { return rep_ ? std::string_view(rep_->text) : std::string_view(); }
  std::span<const ByteRange> taint() const {
    return rep_ ? std::span<const ByteRange>(rep_->taint) : std::span<const ByteRange>();
  }
  size_t size() const { return rep_ ? rep_->text.size() : 0; }
  bool empty() const { return size() == 0; }
  /// Length in code points, as Python counts.
  size_t chars() const { return rep_ ? rep_->chars : 0; }
  bool ascii() const { return chars() == size(); }

  /// Byte offset of code point `index`; size() when index >= chars(). Linear for text beyond ASCII.
  size_t ByteOfChar(size_t index) const;
  /// Code points before byte `offset`.
  size_t CharOfByte(size_t offset) const;

  /// Bytes [begin, end) with their taint. REQUIRES: begin <= end <= size(), both at character boundaries.
  Str Slice(size_t begin, size_t end) const;

  /// Marked by the filters safe and escape: `+` then escapes what it joins to it, as Python's Markup does.
  bool markup() const { return markup_; }
  Str WithMarkup(bool markup) const;

 private:
  struct Rep {
    std::string text;
    std::vector<ByteRange> taint;
    size_t chars = 0;
  };
  std::shared_ptr<const Rep> rep_;
  bool markup_ = false;
};

/// Walks a string's taint from left to right: At(offset) in amortised constant time.
class TaintCursor {
 public:
  explicit TaintCursor(const Str& text) : ranges_(text.taint()) {}
  /// Whether the byte is tainted. REQUIRES: offsets never decrease.
  bool At(size_t offset) {
    while (next_ < ranges_.size() && ranges_[next_].end <= offset) ++next_;
    return next_ < ranges_.size() && ranges_[next_].begin <= offset;
  }

 private:
  std::span<const ByteRange> ranges_;
  size_t next_ = 0;
};

/// Builds a Str piece by piece, charging every byte. After the budget or the length limit is passed, appends do
/// nothing and Finish reports the error.
class StrBuilder {
 public:
  explicit StrBuilder(Budget& budget) : budget_(&budget), limit_(budget.max_string()) {}

  void Append(std::string_view text, bool tainted = false);
  void Append(const Str& text) { AppendSlice(text, 0, text.size()); }
  void AppendSlice(const Str& text, size_t begin, size_t end);
  void AppendCodePoint(char32_t code_point, bool tainted);

  size_t size() const { return text_.size(); }
  bool failed() const { return failed_; }
  Status status() const;
  Result<Str> Finish() &&;
  /// The parts themselves, for the rendering's end. REQUIRES: status().ok().
  std::string TakeText() { return std::move(text_); }
  std::vector<ByteRange> TakeTaint() { return std::move(taint_); }

 private:
  bool Reserve(size_t bytes);
  void Taint(size_t begin, size_t end);

  Budget* budget_;
  size_t limit_;
  std::string text_;
  std::vector<ByteRange> taint_;
  bool failed_ = false;
  bool too_long_ = false;
};

}  // namespace kvasir::jinja
