// Character classes and case and normalisation forms, as the tokenizers of the field define them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

/// The beginning of `text`, fit for a message: at most 80 bytes of valid UTF-8.
std::string Excerpt(std::string_view text);

/// Unicode's White_Space property.
bool IsWhitespace(char32_t c);
/// General category Nd, Nl or No.
bool IsNumeric(char32_t c);
/// General category P*, and the ASCII symbols that ispunct() counts.
bool IsPunctuation(char32_t c);
/// Letters, marks, decimal digits, letter numbers, connectors and joiners: \w of Unicode TR18.
bool IsWord(char32_t c);
/// General category M*.
bool IsMark(char32_t c);
/// General category Mn.
bool IsNonspacingMark(char32_t c);
/// General category Cc, Cf, Co (and unpaired surrogates); not unassigned code points.
bool IsOther(char32_t c);
/// CJK ideographs as BERT's tokenizer delimits them.
bool IsCjkIdeograph(char32_t c);
/// The name of the character's script is not looked at, only whether it can continue a grapheme cluster.
/// `state` starts at 0 for each text. True when a cluster ends between `before` and `after`.
bool IsGraphemeBreak(char32_t before, char32_t after, int32_t* state);

/// Appends the full lower-case mapping without context (final sigma is not special).
void AppendLowercase(std::string& out, char32_t c);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// Appends the normal form of `text`. Linear but for sorting runs of combining marks. REQUIRES: valid UTF-8.
void AppendNormalForm(std::string& out, std::string_view text, NormalForm form);

/// True when `c` begins a stretch that never interacts with what stands before it (ASCII).
inline bool IsNormalizationBoundary(char c) { return static_cast<unsigned char>(c) < 0x80; }

}  // namespace kvasir
