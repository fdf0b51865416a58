// Character classes and case mappings as Python's str has them.
#pragma once

#include <string_view>

namespace kvasir::jinja {

/// str.isspace of one character.
bool IsSpace(char32_t c);
/// Whether str.splitlines breaks here.
bool IsLineBreak(char32_t c);
/// str.isprintable of one character.
bool IsPrintable(char32_t c);
bool IsAlpha(char32_t c);
/// str.isdecimal: digits of any script.
bool IsDecimal(char32_t c);
bool IsNumeric(char32_t c);
bool IsUpper(char32_t c);
bool IsLower(char32_t c);
bool IsTitle(char32_t c);
/// Has upper, lower or title case.
bool IsCased(char32_t c);
/// Does not end a word for the rule of the final sigma.
bool IsCaseIgnorable(char32_t c);

/// A full case mapping: up to three characters.
struct CaseMapping {
  char32_t chars[3];
  int count;
};
CaseMapping ToUpper(char32_t c);
CaseMapping ToLower(char32_t c);
CaseMapping ToTitle(char32_t c);
/// For comparisons without case (str.casefold).
CaseMapping Fold(char32_t c);

/// Bytes of white space at the beginning and at the end of valid UTF-8 text.
size_t LeadingSpace(std::string_view text);
size_t TrailingSpace(std::string_view text);

}  // namespace kvasir::jinja
