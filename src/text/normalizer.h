// Normalisers: what is done to a text before it is divided into pieces.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/json.h"
#include "text/regex.h"
#include "text/text_buffer.h"
#include "text/unicode.h"

namespace kvasir {

/// Rewrites a text. Immutable; thread-safe.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// REQUIRES: the buffer holds valid UTF-8; it still does afterwards.
  virtual Status Apply(TextBuffer& text) const = 0;
};
using NormalizerPtr = std::unique_ptr<Normalizer>;

/// The "normalizer" object of tokenizer.json; null for JSON null. Errors name the type.
Result<NormalizerPtr> ParseNormalizer(const json::value& spec, const std::string& what);

NormalizerPtr MakeNormalForm(NormalForm form);
NormalizerPtr MakePrepend(std::string prefix);
/// Every match becomes `content`, literally.
NormalizerPtr MakeReplace(Regex pattern, std::string content);
NormalizerPtr MakeStrip(bool left, bool right);
NormalizerPtr MakeBertNormalizer(bool clean_text, bool chinese_chars, bool strip_accents, bool lowercase);
NormalizerPtr MakeNormalizerSequence(std::vector<NormalizerPtr> parts);
/// How compiled rules are looked up.
enum class CharsmapStyle {
  kClusters,      // Hugging Face's: whole short grapheme clusters, then characters, by the shortest key
  kLongestMatch,  // SentencePiece's own: the longest key at each place
};
/// SentencePiece's compiled rules: a little-endian double-array trie and its replacement strings. Null when empty.
Result<NormalizerPtr> MakePrecompiled(std::string_view charsmap, CharsmapStyle style = CharsmapStyle::kClusters);

/// {"String": …} or {"Regex": …} as tokenizer.json writes patterns.
Result<Regex> ParsePattern(const json::value* spec, const std::string& what);

}  // namespace kvasir
