#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/utf8.h"

namespace kvasir {
namespace {

utf8proc_category_t Category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool InRange(char32_t c, char32_t low, char32_t high) { return c >= low && c <= high; }

struct CodeRange {
  char32_t low;
  char32_t high;
};
#include "text/unicode_changes.inc"

bool IsIn(std::span<const CodeRange> ranges, char32_t c) {
  const auto found =
      std::partition_point(ranges.begin(), ranges.end(), [c](CodeRange range) { return range.high < c; });
  return found != ranges.end() && found->low <= c;
}

}  // namespace

std::string Excerpt(std::string_view text) {
  std::string_view part = text.substr(0, 80);
  if (part.size() < text.size()) part.remove_suffix(IncompleteUtf8Suffix(part));
  return ReplaceInvalidUtf8(part) + (part.size() < text.size() ? "…" : "");
}

bool IsWhitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || InRange(c, '\t', '\r');
  return c == 0x85 || c == 0xA0 || c == 0x1680 || InRange(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) {
  if (c < 0x80) return InRange(c, '0', '9');
  const auto category = Category(c);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

bool IsPunctuation(char32_t c) {
  if (c < 0x80) return InRange(c, 33, 47) || InRange(c, 58, 64) || InRange(c, 91, 96) || InRange(c, 123, 126);
  const auto category = Category(c);
  if (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO) return !IsIn(kNotPunctuation, c);
  return IsIn(kFormerPunctuation, c);
}

bool IsWord(char32_t c) {
  if (c < 0x80) return InRange(c, '0', '9') || InRange(c, 'A', 'Z') || InRange(c, 'a', 'z') || c == '_';
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: break;
  }
  // Join_Control, and the symbols that are Other_Alphabetic.
  return c == 0x200C || c == 0x200D || InRange(c, 0x24B6, 0x24E9) || InRange(c, 0x1F130, 0x1F149) ||
         InRange(c, 0x1F150, 0x1F169) || InRange(c, 0x1F170, 0x1F189) || IsIn(kNewWord, c);
}

bool IsMark(char32_t c) {
  if (c < 0x300) return false;
  const auto category = Category(c);
  if (category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME) {
    return !IsIn(kNotMark, c);
  }
  return IsIn(kFormerMark, c);
}

bool IsNonspacingMark(char32_t c) {
  if (c < 0x300) return false;
  return Category(c) == UTF8PROC_CATEGORY_MN ? !IsIn(kNotNonspacing, c) : IsIn(kFormerNonspacing, c);
}

bool IsOther(char32_t c) {
  const auto category = Category(c);
  const bool other = category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
                     category == UTF8PROC_CATEGORY_CO || category == UTF8PROC_CATEGORY_CS;
  return other && !IsIn(kNotOther, c);
}

bool IsCjkIdeograph(char32_t c) {
  return InRange(c, 0x4E00, 0x9FFF) || InRange(c, 0x3400, 0x4DBF) || InRange(c, 0x20000, 0x2A6DF) ||
         InRange(c, 0x2A700, 0x2B73F) || InRange(c, 0x2B740, 0x2B81F) || InRange(c, 0x2B920, 0x2CEAF) ||
         InRange(c, 0xF900, 0xFAFF) || InRange(c, 0x2F800, 0x2FA1F);
}

bool IsGraphemeBreak(char32_t before, char32_t after, int32_t* state) {
  return utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before), static_cast<utf8proc_int32_t>(after),
                                          state);
}

void AppendLowercase(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(InRange(c, 'A', 'Z') ? c + 32 : c);
    return;
  }
  if (c == 0x130) {  // the only unconditional one-to-many lower-case mapping
    AppendUtf8(out, 'i');
    AppendUtf8(out, 0x307);
    return;
  }
  AppendUtf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

void AppendNormalForm(std::string& out, std::string_view text, NormalForm form) {
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size() + 8);
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, i);
    i += unit.length;
    utf8proc_int32_t parts[32];  // the longest decomposition has 18 code points
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(unit.code_point), parts, 32, decompose, &boundary);
    if (count < 0 || count > 32 || (count > 0 && IsIn(kNoDecomposition, unit.code_point))) {
      points.push_back(static_cast<utf8proc_int32_t>(unit.code_point));
    } else {
      points.insert(points.end(), parts, parts + count);
    }
  }
  // Canonical ordering by a stable sort of each run of non-starters; utf8proc's own is quadratic in the run.
  const auto combining = [](utf8proc_int32_t c) {
    return c < 0x300 ? utf8proc_propval_t{0} : utf8proc_get_property(c)->combining_class;
  };
  for (size_t i = 0; i < points.size();) {
    if (combining(points[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < points.size() && combining(points[end]) != 0) ++end;
    if (end - i > 1) {
      std::stable_sort(points.begin() + static_cast<std::ptrdiff_t>(i),
                       points.begin() + static_cast<std::ptrdiff_t>(end),
                       [&](utf8proc_int32_t a, utf8proc_int32_t b) { return combining(a) < combining(b); });
    }
    i = end;
  }
  if (compose) {
    const auto count = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                                static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (count >= 0) points.resize(static_cast<size_t>(count));
  }
  for (const utf8proc_int32_t c : points) AppendUtf8(out, static_cast<char32_t>(c));
}

}  // namespace kvasir
