#include "text/jinja_text.h"

#include <string.h>

#include <algorithm>
#include <limits>

#include "text/jinja_unicode.h"

namespace kvasir::jinja {
namespace {

// The characters that strip removes: white space, or a given set.
class CharSet {
 public:
  explicit CharSet(const Str* chars) : space_(chars == nullptr) {
    if (!chars) return;
    ForEachChar(chars->view(), [&](char32_t c, size_t) { set_.push_back(c); });
    std::sort(set_.begin(), set_.end());
  }
  bool Has(char32_t c) const { return space_ ? IsSpace(c) : std::binary_search(set_.begin(), set_.end(), c); }

 private:
  bool space_;
  std::vector<char32_t> set_;
};

size_t PreviousChar(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

std::vector<Str> SplitSpace(const Str& text, int64_t max_splits) {
  std::vector<Str> parts;
  const std::string_view view = text.view();
  size_t begin = LeadingSpace(view);
  while (begin < view.size()) {
    size_t end = begin;
    if (max_splits >= 0 && std::cmp_greater_equal(parts.size(), max_splits)) {
      end = view.size();
    } else {
      while (end < view.size()) {
        const Utf8Unit unit = DecodeUtf8(view, end);
        if (IsSpace(unit.code_point)) break;
        end += unit.length;
      }
    }
    parts.push_back(text.Slice(begin, end));
    begin = end + LeadingSpace(view.substr(end));
  }
  return parts;
}

std::vector<Str> RSplitSpace(const Str& text, int64_t max_splits) {
  std::vector<Str> parts;
  const std::string_view view = text.view();
  size_t end = view.size() - TrailingSpace(view);
  while (end > 0) {
    size_t begin = end;
    if (std::cmp_greater_equal(parts.size(), max_splits)) {
      begin = 0;
    } else {
      while (begin > 0) {
        const size_t previous = PreviousChar(view, begin);
        if (IsSpace(DecodeUtf8(view, previous).code_point)) break;
        begin = previous;
      }
    }
    parts.push_back(text.Slice(begin, end));
    end = begin - TrailingSpace(view.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

void AppendMapping(StrBuilder& out, const CaseMapping& mapping, bool tainted) {
  for (int i = 0; i < mapping.count; ++i) out.AppendCodePoint(mapping.chars[i], tainted);
}

// Σ at the end of a word becomes ς: a cased letter before, none after (Unicode 3.13, Final_Sigma).
bool IsFinalSigma(std::string_view text, size_t offset, bool cased_before) {
  if (!cased_before) return false;
  for (size_t i = offset + 2; i < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, i);
    if (!IsCaseIgnorable(unit.code_point)) return !IsCased(unit.code_point);
    i += unit.length;
  }
  return true;
}

enum class Target : uint8_t { kUpper, kLower, kTitle };

// What becomes of character `c`; `in_word` says whether a cased letter came just before.
Target ChooseCase(CaseStyle style, char32_t c, size_t offset, bool in_word) {
  switch (style) {
    case CaseStyle::kUpper: return Target::kUpper;
    case CaseStyle::kLower:
    case CaseStyle::kFold: return Target::kLower;
    case CaseStyle::kCapitalize: return offset == 0 ? Target::kTitle : Target::kLower;
    case CaseStyle::kTitle: return in_word ? Target::kLower : Target::kTitle;
    case CaseStyle::kSwap: break;
  }
  return IsUpper(c) ? Target::kLower : Target::kUpper;
}

}  // namespace

Str Strip(const Str& text, const Str* chars, Side side) {
  const CharSet set(chars);
  const std::string_view view = text.view();
  size_t begin = 0, end = view.size();
  while (side != Side::kRight && begin < end) {
    const Utf8Unit unit = DecodeUtf8(view, begin);
    if (!set.Has(unit.code_point)) break;
    begin += unit.length;
  }
  while (side != Side::kLeft && end > begin) {
    const size_t previous = PreviousChar(view, end);
    if (!set.Has(DecodeUtf8(view, previous).code_point)) break;
    end = previous;
  }
  return text.Slice(begin, end);
}

size_t Find(std::string_view text, std::string_view needle, size_t begin) {
  if (begin > text.size()) return std::string_view::npos;
  if (needle.empty()) return begin;
  if (text.size() - begin < needle.size()) return std::string_view::npos;
  // memmem is linear for every needle (two-way search), which string_view::find is not.
  const void* found = memmem(text.data() + begin, text.size() - begin, needle.data(), needle.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

Result<std::vector<Str>> Split(Budget& budget, const Str& text, const Str* separator, int64_t max_splits,
                               bool from_right) {
  if (!separator) {
    return from_right && max_splits >= 0 ? RSplitSpace(text, max_splits) : SplitSpace(text, max_splits);
  }
  if (separator->empty()) return InvalidData("the separator of split is empty");
  const std::string_view view = text.view(), needle = separator->view();
  const uint64_t limit = max_splits < 0 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(max_splits);
  std::vector<Str> parts;
  if (from_right) {
    RETURN_IF_ERROR(budget.Charge(view.size() / 16 * needle.size()));  // rfind may look at every byte so often
    size_t end = view.size();
    while (parts.size() < limit && end >= needle.size()) {
      const size_t found = view.rfind(needle, end - needle.size());
      if (found == std::string_view::npos) break;
      parts.push_back(text.Slice(found + needle.size(), end));
      end = found;
    }
    parts.push_back(text.Slice(0, end));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  size_t begin = 0;
  while (parts.size() < limit) {
    const size_t found = Find(view, needle, begin);
    if (found == std::string_view::npos) break;
    parts.push_back(text.Slice(begin, found));
    begin = found + needle.size();
  }
  parts.push_back(text.Slice(begin, view.size()));
  return parts;
}

std::vector<Str> SplitLines(const Str& text, bool keep_ends) {
  std::vector<Str> lines;
  const std::string_view view = text.view();
  size_t begin = 0;
  for (size_t i = 0; i < view.size();) {
    const Utf8Unit unit = DecodeUtf8(view, i);
    size_t next = i + unit.length;
    if (IsLineBreak(unit.code_point)) {
      if (unit.code_point == '\r' && next < view.size() && view[next] == '\n') ++next;
      lines.push_back(text.Slice(begin, keep_ends ? next : i));
      begin = next;
    }
    i = next;
  }
  if (begin < view.size()) lines.push_back(text.Slice(begin, view.size()));
  return lines;
}

Result<Str> Replace(Budget& budget, const Str& text, const Str& old, const Str& with, int64_t count) {
  StrBuilder out(budget);
  const std::string_view view = text.view();
  uint64_t left = count < 0 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(count);
  size_t begin = 0;
  if (old.empty()) {
    // Before every character and at the end.
    for (; left > 0 && !out.failed(); --left) {
      out.Append(with);
      if (begin >= view.size()) break;
      const size_t next = begin + DecodeUtf8(view, begin).length;
      out.AppendSlice(text, begin, next);
      begin = next;
    }
  } else {
    for (; left > 0 && !out.failed(); --left) {
      const size_t found = Find(view, old.view(), begin);
      if (found == std::string_view::npos) break;
      out.AppendSlice(text, begin, found);
      out.Append(with);
      begin = found + old.size();
    }
  }
  out.AppendSlice(text, begin, view.size());
  return std::move(out).Finish();
}

Result<Str> Join(Budget& budget, const Str& separator, const std::vector<Str>& parts) {
  StrBuilder out(budget);
  for (size_t i = 0; i < parts.size() && !out.failed(); ++i) {
    if (i > 0) out.Append(separator);
    out.Append(parts[i]);
  }
  return std::move(out).Finish();
}

Result<Str> Repeat(Budget& budget, const Str& text, int64_t times) {
  StrBuilder out(budget);
  for (int64_t i = 0; i < times && !text.empty() && !out.failed(); ++i) out.Append(text);
  return std::move(out).Finish();
}

namespace {

// Upper or lower case of ASCII text, the usual case: byte by byte, with the taint as it is.
Result<Str> ChangeAsciiCase(Budget& budget, const Str& text, bool upper) {
  RETURN_IF_ERROR(budget.Charge(text.size()));
  std::string out(text.view());
  const char first = upper ? 'a' : 'A';
  for (char& c : out) {
    if (c >= first && c < first + 26) c = static_cast<char>(c ^ 0x20);
  }
  return Str(std::move(out), {text.taint().begin(), text.taint().end()});
}

constexpr char32_t kCapitalSigma = 0x3A3, kFinalSigma = 0x3C2;

}  // namespace

Result<Str> ChangeCase(Budget& budget, const Str& text, CaseStyle style) {
  if (text.ascii() && (style == CaseStyle::kUpper || style == CaseStyle::kLower)) {
    return ChangeAsciiCase(budget, text, style == CaseStyle::kUpper);
  }
  StrBuilder out(budget);
  TaintCursor taint(text);
  bool in_word = false;       // title: a cased letter came just before
  bool cased_before = false;  // final sigma: the same, but for characters that do not count
  ForEachChar(text.view(), [&](char32_t c, size_t offset) {
    const bool tainted = taint.At(offset);
    const Target target = ChooseCase(style, c, offset, in_word);
    if (style == CaseStyle::kFold && c >= 0x80) {
      AppendMapping(out, Fold(c), tainted);
    } else if (target == Target::kLower && c == kCapitalSigma && IsFinalSigma(text.view(), offset, cased_before)) {
      out.AppendCodePoint(kFinalSigma, tainted);
    } else {
      AppendMapping(out,
                    target == Target::kUpper   ? ToUpper(c)
                    : target == Target::kLower ? ToLower(c)
                                               : ToTitle(c),
                    tainted);
    }
    in_word = IsCased(c);
    if (!IsCaseIgnorable(c)) cased_before = in_word;
  });
  return std::move(out).Finish();
}

Result<Str> TitleFilter(Budget& budget, const Str& text) {
  StrBuilder out(budget);
  const std::string_view view = text.view();
  const auto breaks = [](char32_t c) { return IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<'; };
  // Jinja splits into words and runs of breaks; of each, the first character is raised and the rest is lowered.
  for (size_t begin = 0; begin < view.size() && !out.failed();) {
    const Utf8Unit first = DecodeUtf8(view, begin);
    size_t end = begin + first.length;
    while (end < view.size()) {
      const Utf8Unit unit = DecodeUtf8(view, end);
      if (breaks(unit.code_point) != breaks(first.code_point)) break;
      end += unit.length;
    }
    ASSIGN_OR_RETURN(const Str head, ChangeCase(budget, text.Slice(begin, begin + first.length), CaseStyle::kUpper));
    ASSIGN_OR_RETURN(const Str tail, ChangeCase(budget, text.Slice(begin + first.length, end), CaseStyle::kLower));
    out.Append(head);
    out.Append(tail);
    begin = end;
  }
  return std::move(out).Finish();
}

Result<Str> EscapeHtml(Budget& budget, const Str& text) {
  if (text.markup()) return text;
  StrBuilder out(budget);
  TaintCursor taint(text);
  const std::string_view view = text.view();
  for (size_t i = 0; i < view.size() && !out.failed(); ++i) {
    const bool tainted = taint.At(i);
    switch (view[i]) {
      case '&': out.Append("&amp;", tainted); break;
      case '<': out.Append("&lt;", tainted); break;
      case '>': out.Append("&gt;", tainted); break;
      case '"': out.Append("&#34;", tainted); break;
      case '\'': out.Append("&#39;", tainted); break;
      default: out.Append(view.substr(i, 1), tainted);
    }
  }
  ASSIGN_OR_RETURN(const Str escaped, std::move(out).Finish());
  return escaped.WithMarkup(true);
}

Result<Str> Concat(Budget& budget, const Str& a, const Str& b) {
  const bool markup = a.markup() || b.markup();
  StrBuilder out(budget);
  for (const Str* part : {&a, &b}) {
    if (!markup) {
      out.Append(*part);
      continue;
    }
    ASSIGN_OR_RETURN(const Str escaped, EscapeHtml(budget, *part));
    out.Append(escaped);
  }
  ASSIGN_OR_RETURN(const Str joined, std::move(out).Finish());
  return joined.WithMarkup(markup);
}

SliceRange ResolveSlice(int64_t length, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step) {
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
  const auto clamp = [&](int64_t index) {
    if (index < 0) index = index < -length ? low : index + length;
    return std::clamp(index, low, high);
  };
  const int64_t first = start ? clamp(*start) : step > 0 ? low : high;
  const int64_t last = stop ? clamp(*stop) : step > 0 ? high : low;
  if (step > 0) return {first, first < last ? (last - first - 1) / step + 1 : 0};
  if (step == std::numeric_limits<int64_t>::min()) return {first, first > last ? 1 : 0};
  return {first, first > last ? (first - last - 1) / -step + 1 : 0};
}

Result<Str> SliceChars(Budget& budget, const Str& text, std::optional<int64_t> start, std::optional<int64_t> stop,
                       int64_t step) {
  RETURN_IF_ERROR(budget.Charge(text.size()));
  const auto [first, count] = ResolveSlice(static_cast<int64_t>(text.chars()), start, stop, step);
  if (count == 0) return Str();
  if (step == 1) {
    return text.Slice(text.ByteOfChar(static_cast<size_t>(first)), text.ByteOfChar(static_cast<size_t>(first + count)));
  }
  std::vector<size_t> offsets;
  if (!text.ascii()) ForEachChar(text.view(), [&](char32_t, size_t offset) { offsets.push_back(offset); });
  StrBuilder out(budget);
  for (int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<size_t>(first + i * step);
    const size_t begin = offsets.empty() ? index : offsets[index];
    out.AppendSlice(text, begin, begin + DecodeUtf8(text.view(), begin).length);
  }
  return std::move(out).Finish();
}

}  // namespace kvasir::jinja
