#include "text/jinja_unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "base/utf8.h"

namespace kvasir::jinja {
namespace {

utf8proc_category_t Category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

CaseMapping One(utf8proc_int32_t c) { return {{static_cast<char32_t>(c), 0, 0}, 1}; }

struct SpecialCase {
  char32_t c;
  char32_t upper[3];
  char32_t title[3];
};

// Characters whose upper or title case has more than one character (Unicode 14, SpecialCasing.txt).
constexpr SpecialCase kSpecial[] = {
#include "text/jinja_special_casing.inc"
};

const SpecialCase* FindSpecial(char32_t c) {
  const auto* it = std::lower_bound(std::begin(kSpecial), std::end(kSpecial), c,
                                    [](const SpecialCase& entry, char32_t value) { return entry.c < value; });
  return it != std::end(kSpecial) && it->c == c ? it : nullptr;
}

CaseMapping Full(const char32_t (&chars)[3]) {
  return {{chars[0], chars[1], chars[2]}, chars[2] ? 3 : chars[1] ? 2 : 1};
}

}  // namespace

bool IsSpace(char32_t c) {
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsLineBreak(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool IsPrintable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

bool IsAlpha(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDecimal(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; }

bool IsNumeric(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool IsUpper(char32_t c) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(c)); }
bool IsLower(char32_t c) { return utf8proc_islower(static_cast<utf8proc_int32_t>(c)); }
bool IsTitle(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LT; }
bool IsCased(char32_t c) { return IsUpper(c) || IsLower(c) || IsTitle(c); }

bool IsCaseIgnorable(char32_t c) {
  if (c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xAD || c == 0xB7 || c == 0x2018 ||
      c == 0x2019 || c == 0x2024 || c == 0x2027) {
    return true;
  }
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return false;
  }
}

CaseMapping ToUpper(char32_t c) {
  if (c < 0x80) return One(c >= 'a' && c <= 'z' ? static_cast<int>(c) - 32 : static_cast<int>(c));
  if (const SpecialCase* special = FindSpecial(c)) return Full(special->upper);
  return One(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}

CaseMapping ToLower(char32_t c) {
  if (c < 0x80) return One(c >= 'A' && c <= 'Z' ? static_cast<int>(c) + 32 : static_cast<int>(c));
  if (c == 0x130) return {{'i', 0x307, 0}, 2};
  return One(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

CaseMapping ToTitle(char32_t c) {
  if (const SpecialCase* special = FindSpecial(c)) return Full(special->title);
  return One(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
}

CaseMapping Fold(char32_t c) {
  utf8proc_int32_t folded[3] = {};
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded, 3, UTF8PROC_CASEFOLD, &boundary);
  if (count < 1 || count > 3) return One(static_cast<utf8proc_int32_t>(c));
  return {{static_cast<char32_t>(folded[0]), static_cast<char32_t>(folded[1]), static_cast<char32_t>(folded[2])},
          static_cast<int>(count)};
}

size_t LeadingSpace(std::string_view text) {
  size_t offset = 0;
  while (offset < text.size()) {
    const Utf8Unit unit = DecodeUtf8(text, offset);
    if (!IsSpace(unit.code_point)) break;
    offset += unit.length;
  }
  return offset;
}

size_t TrailingSpace(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!IsSpace(DecodeUtf8(text, begin).code_point)) break;
    end = begin;
  }
  return text.size() - end;
}

}  // namespace kvasir::jinja
