// Pre-tokenisers: how a normalised text falls into pieces that no token crosses.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/json.h"
#include "text/regex.h"

namespace kvasir {

/// A stretch of a PieceList's text.
struct Piece {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool at_start = false;  // begins where the whole text begins
};

/// Pieces in order over one text. The text lives outside until a pre-tokeniser must change it.
class PieceList {
 public:
  /// One piece over all of `text`, which must outlive the list.
  void Reset(std::string_view text, bool at_start) {
    text_ = text;
    pieces_.clear();
    if (!text.empty()) pieces_.push_back({0, static_cast<uint32_t>(text.size()), at_start});
  }
  std::string_view text() const { return text_; }
  std::string_view view(const Piece& piece) const { return text_.substr(piece.begin, piece.end - piece.begin); }
  std::vector<Piece>& pieces() { return pieces_; }
  const std::vector<Piece>& pieces() const { return pieces_; }
  /// Replaces the text; the pieces must already refer to the new one.
  void Own(std::string text) {
    owned_ = std::move(text);
    text_ = owned_;
  }

 private:
  std::string_view text_;
  std::string owned_;
  std::vector<Piece> pieces_;
};

/// Divides pieces further. Immutable; thread-safe.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual Status Apply(PieceList& list) const = 0;
  /// Whether pieces need to know that they stand at the beginning of the whole text.
  virtual bool needs_start() const { return false; }
  /// Whether the last thing done is to write every byte as its character of the byte alphabet, left to the model.
  virtual bool defers_byte_alphabet() const { return false; }
};
using PreTokenizerPtr = std::unique_ptr<PreTokenizer>;

/// What happens to the delimiters that a pattern finds.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Where the prefix of Metaspace goes.
enum class PrependScheme { kAlways, kFirst, kNever };

/// The "pre_tokenizer" object of tokenizer.json; null for JSON null. `last`: nothing rewrites the pieces after it.
Result<PreTokenizerPtr> ParsePreTokenizer(const json::value& spec, const std::string& what, bool last = true);

/// The prepend_scheme of a Metaspace object, or what its older add_prefix_space means.
Result<PrependScheme> ParsePrependScheme(const JsonReader& reader);

PreTokenizerPtr MakeSplit(Regex pattern, SplitBehavior behavior, bool invert = false);
/// `defer`: leave writing bytes as characters to the model (only as the last step).
PreTokenizerPtr MakeByteLevel(bool add_prefix_space, bool use_regex, bool defer);
PreTokenizerPtr MakeMetaspace(std::string replacement, PrependScheme scheme, bool split);
PreTokenizerPtr MakeBertPreTokenizer();
PreTokenizerPtr MakeWhitespaceSplit();
PreTokenizerPtr MakePreTokenizerSequence(std::vector<PreTokenizerPtr> parts);

/// The division that the first byte-level vocabularies use.
inline constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace kvasir
