// What Python's str methods do, on strings that carry taint. Positions are bytes unless said otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja_string.h"

namespace kvasir::jinja {

enum class Side : uint8_t { kLeft, kRight, kBoth };

/// Removes white space, or the characters in `chars`, from the ends.
Str Strip(const Str& text, const Str* chars, Side side);

/// First place of `needle` from `begin` on; npos where it is not. Linear in time.
size_t Find(std::string_view text, std::string_view needle, size_t begin = 0);

/// str.split and rsplit. separator null: runs of white space. max_splits < 0: no limit. An empty separator is an error.
Result<std::vector<Str>> Split(Budget& budget, const Str& text, const Str* separator, int64_t max_splits,
                               bool from_right);
std::vector<Str> SplitLines(const Str& text, bool keep_ends);
/// str.replace; count < 0: all of them.
Result<Str> Replace(Budget& budget, const Str& text, const Str& old, const Str& with, int64_t count);
Result<Str> Join(Budget& budget, const Str& separator, const std::vector<Str>& parts);
Result<Str> Repeat(Budget& budget, const Str& text, int64_t times);

enum class CaseStyle : uint8_t { kUpper, kLower, kCapitalize, kTitle, kSwap, kFold };
Result<Str> ChangeCase(Budget& budget, const Str& text, CaseStyle style);
/// Jinja's own title filter, whose words begin after white space, hyphens and opening brackets.
Result<Str> TitleFilter(Budget& budget, const Str& text);
/// &, <, >, " and ' as HTML entities; the result is marked as markup.
Result<Str> EscapeHtml(Budget& budget, const Str& text);
/// a + b, which escapes the plain side where the other is markup.
Result<Str> Concat(Budget& budget, const Str& a, const Str& b);

/// A slice by code points, as text[start:stop:step]. REQUIRES: step != 0.
Result<Str> SliceChars(Budget& budget, const Str& text, std::optional<int64_t> start, std::optional<int64_t> stop,
                       int64_t step);
/// Python's rules for slice bounds: the indices that are taken, first and count.
struct SliceRange {
  int64_t first;
  int64_t count;
};
SliceRange ResolveSlice(int64_t length, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step);

/// Calls visit(code point, byte offset) for every character.
template <typename Visit>
void ForEachChar(std::string_view text, Visit&& visit);

}  // namespace kvasir::jinja

#include "base/utf8.h"

namespace kvasir::jinja {

template <typename Visit>
void ForEachChar(std::string_view text, Visit&& visit) {
  for (size_t offset = 0; offset < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, offset);
    visit(unit.code_point, offset);
    offset += unit.length;
  }
}

}  // namespace kvasir::jinja
