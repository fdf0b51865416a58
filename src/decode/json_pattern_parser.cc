#include "decode/json_pattern_parser.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"

namespace kvasir {
namespace {

constexpr int kMostGroups = 64;  // inside each other
constexpr int kMostRepeats = 65'535;

/// Sorted, apart.
void Normalize(CodeSet& set) {
  std::ranges::sort(set, {}, &CodeRange::low);
  CodeSet merged;
  for (const CodeRange range : set) {
    if (!merged.empty() && range.low <= merged.back().high + 1) {
      merged.back().high = std::max(merged.back().high, range.high);
    } else {
      merged.push_back(range);
    }
  }
  set = std::move(merged);
}

CodeSet Complement(CodeSet set) {
  Normalize(set);
  CodeSet rest;
  char32_t next = 0;
  for (const CodeRange range : set) {
    if (range.low > next) rest.push_back({next, range.low - 1});
    next = range.high + 1;
  }
  if (next <= kLastCodePoint) rest.push_back({next, kLastCodePoint});
  return rest;
}

// ECMA 262, 22.2.2.
CodeSet Digits() { return {{'0', '9'}}; }
CodeSet WordCharacters() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }
CodeSet Spaces() {
  return {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
          {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
}
CodeSet Dot() { return Complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}); }
CodeSet Everything() { return {{0, kLastCodePoint}}; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  /// The whole expression. Called once.
  Result<PatternTree> Parse() {
    std::vector<int32_t> choices;
    do {
      bool begins = false;
      bool ends = false;
      while (Take('^')) begins = true;
      ASSIGN_OR_RETURN(std::vector<int32_t> parts, Sequence(0));
      while (Take('$')) ends = true;
      if (!AtEnd() && Peek() != '|') return Problem(Peek() == ')' ? "\")\" without \"(\"" : "an anchor inside");
      if (!begins) parts.insert(parts.begin(), Anything());
      if (!ends) parts.push_back(Anything());
      choices.push_back(Add({.kind = PatternPart::kSequence, .set = {}, .children = std::move(parts)}));
    } while (Take('|'));
    const int32_t root = Add({.kind = PatternPart::kChoice, .set = {}, .children = std::move(choices)});
    return PatternTree{std::move(parts_), root};
  }

 private:
  bool AtEnd() const { return at_ >= text_.size(); }
  char Peek() const { return text_[at_]; }
  bool Take(char c) {
    if (AtEnd() || Peek() != c) return false;
    ++at_;
    return true;
  }
  Status Problem(std::string_view what) const {
    return InvalidArgument(
        "character {}: {}; patterns are of literals, classes, groups, |, repetitions and anchors at "
        "their ends",
        at_ + 1, what);
  }
  int32_t Add(PatternPart part) {
    parts_.push_back(std::move(part));
    return static_cast<int32_t>(parts_.size()) - 1;
  }
  int32_t AddSet(CodeSet set) { return Add({.kind = PatternPart::kSet, .set = std::move(set), .children = {}}); }
  int32_t Anything() {
    const int32_t any = AddSet(Everything());
    return Add({.kind = PatternPart::kRepeat, .set = {}, .children = {any}});
  }

  Result<std::vector<int32_t>> Sequence(int depth) {
    std::vector<int32_t> parts;
    while (!AtEnd() && Peek() != '|' && Peek() != ')' && Peek() != '$') {
      ASSIGN_OR_RETURN(const int32_t atom, Atom(depth));
      ASSIGN_OR_RETURN(const int32_t repeated, Repeated(atom));
      parts.push_back(repeated);
    }
    return parts;
  }

  Result<int32_t> Group(int depth) {
    if (depth >= kMostGroups) return Problem("groups too deep inside each other");
    if (Take('?')) {
      if (!Take(':')) return Problem("a group that begins with \"(?\" but not with \"(?:\"");
    }
    std::vector<int32_t> choices;
    do {
      ASSIGN_OR_RETURN(std::vector<int32_t> parts, Sequence(depth + 1));
      choices.push_back(Add({.kind = PatternPart::kSequence, .set = {}, .children = std::move(parts)}));
    } while (Take('|'));
    if (!AtEnd() && Peek() == '$') return Problem("an anchor inside a group");
    if (!Take(')')) return Problem("\"(\" without \")\"");
    return Add({.kind = PatternPart::kChoice, .set = {}, .children = std::move(choices)});
  }

  Result<int32_t> Atom(int depth) {
    if (Take('(')) return Group(depth);
    if (Take('.')) return AddSet(Dot());
    if (Take('[')) {
      ASSIGN_OR_RETURN(CodeSet set, Class());
      return AddSet(std::move(set));
    }
    if (Take('\\')) {
      ASSIGN_OR_RETURN(CodeSet set, Escape(false));
      return AddSet(std::move(set));
    }
    if (Peek() == '^') return Problem("an anchor inside");
    if (Peek() == '*' || Peek() == '+' || Peek() == '?' || Peek() == '{') return Problem("nothing to repeat");
    const char32_t c = Character();
    return AddSet({{c, c}});
  }

  char32_t Character() {
    const Utf8Unit unit = DecodeUtf8(text_, at_);
    at_ += unit.length;
    return unit.code_point;
  }

  Result<int32_t> Repeated(int32_t atom) {
    PatternPart part{.kind = PatternPart::kRepeat, .set = {}, .children = {atom}};
    if (Take('*')) {
      part.min = 0;
    } else if (Take('+')) {
      part.min = 1;
    } else if (Take('?')) {
      part.max = 1;
    } else if (Take('{')) {
      RETURN_IF_ERROR(Bounds(part));
    } else {
      return atom;
    }
    (void)Take('?');  // lazy: the same texts
    if (!AtEnd() && (Peek() == '*' || Peek() == '+' || Peek() == '?' || Peek() == '{')) {
      return Problem("a repetition of a repetition");
    }
    return Add(std::move(part));
  }

  Result<int> Count() {
    int count = 0;
    const size_t begin = at_;
    for (; !AtEnd() && Peek() >= '0' && Peek() <= '9'; ++at_) {
      count = count * 10 + (Peek() - '0');
      if (count > kMostRepeats) return Problem("more repetitions than can be");
    }
    if (at_ == begin) return Problem("a number is missing in { }");
    return count;
  }

  Status Bounds(PatternPart& part) {
    ASSIGN_OR_RETURN(part.min, Count());
    part.max = part.min;
    if (Take(',')) {
      part.max = -1;
      if (!AtEnd() && Peek() != '}') {
        ASSIGN_OR_RETURN(part.max, Count());
        if (part.max < part.min) return Problem("the second number in { } is smaller than the first");
      }
    }
    return Take('}') ? OkStatus() : Problem("\"{\" without \"}\"");
  }

  Result<char32_t> Hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      if (AtEnd()) return Problem("an escape is cut off");
      const char c = static_cast<char>(Peek() | 32);
      const bool letter = c >= 'a' && c <= 'f';
      if (!letter && (Peek() < '0' || Peek() > '9')) return Problem("an escape's hexadecimal digit is missing");
      value = value * 16 + static_cast<char32_t>(letter ? c - 'a' + 10 : Peek() - '0');
    }
    return value;
  }

  /// Behind a backslash.
  Result<CodeSet> Escape(bool in_class) {
    if (AtEnd()) return Problem("a backslash at the end");
    const char c = Peek();
    const auto one = [](char32_t code) { return CodeSet{{code, code}}; };
    if (static_cast<uint8_t>(c) >= 0x80) return Problem("an escape of a letter");
    ++at_;
    switch (c) {
      case 'd': return Digits();
      case 'D': return Complement(Digits());
      case 'w': return WordCharacters();
      case 'W': return Complement(WordCharacters());
      case 's': return Spaces();
      case 'S': return Complement(Spaces());
      case 't': return one('\t');
      case 'n': return one('\n');
      case 'r': return one('\r');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case 'x':
      case 'u': {
        ASSIGN_OR_RETURN(const char32_t code, Hex(c == 'x' ? 2 : 4));
        if (code >= 0xD800 && code < 0xE000) return Problem("an escape of half a character");
        return one(code);
      }
      default: break;
    }
    const bool letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    --at_;
    if (letter && !(in_class && c == 'b')) return Problem("an escape that is not known");
    ++at_;
    return one(letter ? U'\b' : static_cast<char32_t>(c));
  }

  /// Behind "[".
  Result<CodeSet> Class() {
    const bool inverted = Take('^');
    CodeSet set;
    while (true) {
      if (AtEnd()) return Problem("\"[\" without \"]\"");
      if (Take(']')) break;
      ASSIGN_OR_RETURN(const CodeSet low, ClassItem());
      const bool range = at_ + 1 < text_.size() && Peek() == '-' && text_[at_ + 1] != ']';
      if (!range) {
        set.insert(set.end(), low.begin(), low.end());
        continue;
      }
      ++at_;
      ASSIGN_OR_RETURN(const CodeSet high, ClassItem());
      const auto single = [](const CodeSet& s) { return s.size() == 1 && s[0].low == s[0].high; };
      if (!single(low) || !single(high) || high[0].low < low[0].low) return Problem("a range in [ ] is none");
      set.push_back({low[0].low, high[0].low});
    }
    if (inverted) return Complement(std::move(set));
    Normalize(set);
    return set;
  }

  Result<CodeSet> ClassItem() {
    if (Take('\\')) return Escape(true);
    const char32_t c = Character();
    return CodeSet{{c, c}};
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<PatternPart> parts_;
};

}  // namespace

Result<PatternTree> ParseJsonPattern(std::string_view pattern) { return Parser(pattern).Parse(); }

}  // namespace kvasir
