// From Oniguruma's Ruby syntax to PCRE2: classes are spelt out, because the two disagree on \s, \w, \h, nested classes
// and intersections; flags, quantifiers and anchors are renamed.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "text/regex.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

constexpr std::string_view kSpaceItems = "\\x09-\\x0D\\x{85}\\p{Z}\\x20";
constexpr std::string_view kWordItems =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}"
    "\\x{1F170}-\\x{1F189}";
constexpr std::string_view kHexItems = "0-9A-Fa-f";
constexpr size_t kMaxPattern = 32 * 1024;
constexpr int kMaxDepth = 32;

/// A set of characters: what a PCRE class can hold directly, and alternatives that it cannot.
struct CharSet {
  bool negated = false;
  std::string items;
  std::vector<std::string> extra;

  bool simple() const { return extra.empty(); }

  /// An expression that matches one character of the set.
  std::string Emit() const {
    if (extra.empty()) {
      if (items.empty()) return negated ? "\\p{Any}" : "(?!)";
      return (negated ? "[^" : "[") + items + "]";
    }
    std::string alternatives;
    if (!items.empty()) alternatives = "[" + items + "]";
    for (const std::string& one : extra) {
      if (!alternatives.empty()) alternatives += '|';
      alternatives += one;
    }
    return negated ? "(?:(?!" + alternatives + ")\\p{Any})" : "(?:" + alternatives + ")";
  }

  void Add(const CharSet& other) {
    if (other.simple() && !other.negated) {
      items += other.items;
    } else {
      extra.push_back(other.Emit());
    }
  }
};

CharSet Items(std::string_view items, bool negated = false) { return {negated, std::string(items), {}}; }

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> Run() {
    // A run of spaces at the end of a line is found from its beginning or not at all; saying so keeps the search from
    // starting again at every space.
    if (in_ == "\\s+$") out_ = "(?:\\G|(?<![" + std::string(kSpaceItems) + "]))";
    while (!AtEnd()) RETURN_IF_ERROR(Step());
    if (!groups_.empty()) return Fail("a group is not closed");
    return std::move(out_);
  }

 private:
  bool AtEnd() const { return pos_ >= in_.size(); }
  char Peek(size_t ahead = 0) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  bool Eat(std::string_view text) {
    if (!in_.substr(pos_).starts_with(text)) return false;
    pos_ += text.size();
    return true;
  }
  Status Fail(std::string_view why) const {
    return Unsupported("regular expression \"{}\": {} (at byte {})", Excerpt(in_), why, pos_);
  }
  static bool IsAsciiAlpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  void Atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
  }

  Status Step() {
    const char c = Peek();
    switch (c) {
      case '\\': return Escape();
      case '[': {
        ASSIGN_OR_RETURN(const CharSet set, ParseClass(0));
        Atom(set.Emit());
        return OkStatus();
      }
      case '(': return OpenGroup();
      case ')':
        if (groups_.empty()) return Fail("\")\" without \"(\"");
        atom_ = groups_.back();
        groups_.pop_back();
        out_ += ')';
        ++pos_;
        return OkStatus();
      case '*':
      case '+':
      case '?':
        out_ += c;
        ++pos_;
        if (Peek() == '?' || Peek() == '+') out_ += in_[pos_++];  // lazy, possessive
        return OkStatus();
      case '{': return Braces();
      default: {
        const Utf8Unit unit = DecodeUtf8(in_, pos_);
        if (!unit.valid) return Fail("invalid UTF-8");
        Atom(in_.substr(pos_, unit.length));
        pos_ += unit.length;
        return OkStatus();
      }
    }
  }

  /// {n}, {n,}, {n,m} and Ruby's {,m}; anything else is literal. A "+" after it is a second quantifier in Ruby.
  Status Braces() {
    size_t end = pos_ + 1;
    const auto digits = [&] {
      const size_t begin = end;
      while (end < in_.size() && in_[end] >= '0' && in_[end] <= '9') ++end;
      return std::string(in_.substr(begin, end - begin));
    };
    const std::string low = digits();
    bool comma = false;
    std::string high;
    if (end < in_.size() && in_[end] == ',') {
      comma = true;
      ++end;
      high = digits();
    }
    if (end >= in_.size() || in_[end] != '}' || (low.empty() && high.empty())) {
      Atom("\\{");
      ++pos_;
      return OkStatus();
    }
    if (atom_ == std::string::npos) return Fail("nothing to repeat");
    out_ += '{' + (low.empty() ? "0" : low) + (comma ? "," + high : "") + '}';
    pos_ = end + 1;
    if (Peek() == '+' || (Peek() == '?' && !comma)) {
      out_.insert(atom_, "(?:");
      out_ += ')';
    } else if (Peek() == '?') {
      out_ += '?';
      ++pos_;
    }
    return OkStatus();
  }

  Status OpenGroup() {
    if (groups_.size() >= kMaxDepth) return Fail("too deeply nested");
    const size_t begin = out_.size();
    ++pos_;
    if (Peek() == '*') return Fail("verbs are not supported");
    if (Peek() != '?') {
      out_ += '(';
      groups_.push_back(begin);
      return OkStatus();
    }
    for (const std::string_view opening : {"?:", "?=", "?!", "?<=", "?<!", "?>"}) {
      if (Eat(opening)) {
        out_ += '(';
        out_ += opening;
        groups_.push_back(begin);
        return OkStatus();
      }
    }
    if (Eat("?#")) {
      while (!AtEnd() && Peek() != ')') ++pos_;
      return Eat(")") ? OkStatus() : Fail("a comment is not closed");
    }
    // Flags: Ruby's m is PCRE's s.
    std::string flags = "(?";
    for (++pos_; !AtEnd() && std::string_view("imx-").find(Peek()) != std::string_view::npos; ++pos_) {
      flags += Peek() == 'm' ? 's' : Peek();
    }
    if (Peek() == ':') {
      groups_.push_back(begin);
    } else if (Peek() != ')') {
      return Fail("this kind of group is not supported");
    }
    out_ += flags + in_[pos_++];
    return OkStatus();
  }

  Status Escape() {
    const char c = Peek(1);
    if (std::string_view("bBAzZGRX").find(c) != std::string_view::npos && c != '\0') {
      Atom(in_.substr(pos_, 2));
      pos_ += 2;
      return OkStatus();
    }
    if (c >= '1' && c <= '9') return Fail("back references are not supported");
    if (c == 'k' || c == 'g' || c == 'K') return Fail("this escape is not supported");
    CharSet set;
    char32_t point = 0;
    ASSIGN_OR_RETURN(const bool single, ParseEscape(&set, &point));
    // Oniguruma counts six numbers of Latin-1 as word characters, but only outside classes.
    if (c == 'w' || c == 'W') set.items += "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";
    Atom(single ? fmt::format("\\x{{{:X}}}", static_cast<uint32_t>(point)) : set.Emit());
    return OkStatus();
  }

  /// Reads an escape that means a character (true: *point) or a set of them (false: *set).
  Result<bool> ParseEscape(CharSet* set, char32_t* point) {
    ++pos_;
    if (AtEnd()) return Fail("a lone backslash at the end");
    const char c = in_[pos_++];
    switch (c) {
      case 's': *set = Items(kSpaceItems); return false;
      case 'S': *set = Items(kSpaceItems, true); return false;
      case 'w': *set = Items(kWordItems); return false;
      case 'W': *set = Items(kWordItems, true); return false;
      case 'd': *set = Items("\\p{Nd}"); return false;
      case 'D': *set = Items("\\P{Nd}"); return false;
      case 'h': *set = Items(kHexItems); return false;
      case 'H': *set = Items(kHexItems, true); return false;
      case 'p':
      case 'P': {
        ASSIGN_OR_RETURN(const std::string property, ParseProperty(c == 'P'));
        *set = Items(property);
        return false;
      }
      case 'n': *point = '\n'; return true;
      case 'r': *point = '\r'; return true;
      case 't': *point = '\t'; return true;
      case 'f': *point = '\f'; return true;
      case 'v': *point = '\v'; return true;
      case 'a': *point = 7; return true;
      case 'e': *point = 27; return true;
      case 'b': *point = 8; return true;  // only inside a class
      case '0': *point = ParseNumber(8, 2); return true;
      case 'u': *point = ParseNumber(16, 4); return CheckPoint(*point);
      case 'x':
        if (Eat("{")) {
          *point = ParseNumber(16, 8);
          if (!Eat("}")) return Fail("\\x{ is not closed");
        } else {
          *point = ParseNumber(16, 2);
          if (*point > 0x7F) return Fail("\\x of a single byte over 7F is not a character");
        }
        return CheckPoint(*point);
      default: {
        if (IsAsciiAlpha(c)) return Fail(fmt::format("\\{} is not supported", c));
        const Utf8Unit unit = DecodeUtf8(in_, pos_ - 1);
        if (!unit.valid) return Fail("invalid UTF-8");
        pos_ += unit.length - 1u;
        *point = unit.code_point;
        return true;
      }
    }
  }

  Result<bool> CheckPoint(char32_t point) const {
    if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return Fail("not a code point");
    return true;
  }

  char32_t ParseNumber(int base, int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits && !AtEnd(); ++i) {
      const char c = Peek();
      int digit;
      if (c >= '0' && c <= '9') {
        digit = c - '0';
      } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
        digit = (c | 32) - 'a' + 10;
      } else {
        break;
      }
      if (digit >= base) break;
      value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
      ++pos_;
    }
    return value;
  }

  Result<std::string> ParseProperty(bool negated) {
    if (!Eat("{")) return Fail("\\p needs a name in braces");
    if (Eat("^")) negated = !negated;
    const size_t begin = pos_;
    while (!AtEnd() && (IsAsciiAlpha(Peek()) || Peek() == '_' || Peek() == ' ')) ++pos_;
    std::string name(in_.substr(begin, pos_ - begin));
    if (name.empty() || !Eat("}")) return Fail("\\p needs a name in braces");
    static constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
        {"Letter", "L"},
        {"Mark", "M"},
        {"Number", "N"},
        {"Punctuation", "P"},
        {"Symbol", "S"},
        {"Separator", "Z"},
        {"Other", "C"},
        {"Uppercase_Letter", "Lu"},
        {"Lowercase_Letter", "Ll"},
        {"Decimal_Number", "Nd"},
        {"Punct", "P"},
        {"Digit", "Nd"},
        {"Space", "White_Space"},
        {"Alpha", "Alphabetic"},
        {"Upper", "Uppercase"},
        {"Lower", "Lowercase"},
    };
    static constexpr std::string_view kBinary[] = {"Any",       "White_Space", "Alphabetic",
                                                   "Uppercase", "Lowercase",   "Emoji"};
    for (const auto& [from, to] : kLongNames) {
      if (name == from) name = to;
    }
    // What is neither a category nor binary is a script, without Unicode's extensions of scripts.
    const bool binary = std::find(std::begin(kBinary), std::end(kBinary), name) != std::end(kBinary);
    if (name.size() > 2 && !binary) name.insert(0, "sc:");
    return fmt::format("\\{}{{{}}}", negated ? 'P' : 'p', name);
  }

  static CharSet PosixClass(std::string_view name, bool negated) {
    static constexpr std::pair<std::string_view, std::string_view> kClasses[] = {
        {"alpha", "\\p{Alphabetic}"}, {"alnum", "\\p{Alphabetic}\\p{Nd}"},
        {"upper", "\\p{Uppercase}"},  {"lower", "\\p{Lowercase}"},
        {"punct", "\\p{P}"},          {"space", kSpaceItems},
        {"word", kWordItems}};
    for (const auto& [known, items] : kClasses) {
      if (name == known) return Items(items, negated);
    }
    return Items(fmt::format("[:{}:]", name), negated);
  }

  /// A bracketed class, with nested classes (union) and && (intersection).
  Result<CharSet> ParseClass(int depth) {
    if (depth > kMaxDepth) return Fail("classes nest too deeply");
    ++pos_;  // [
    CharSet set;
    bool negated = Eat("^");
    std::vector<CharSet> terms;  // of an intersection
    bool first = true;
    for (;; first = false) {
      if (AtEnd()) return Fail("a class is not closed");
      if (Peek() == ']' && !first) break;
      if (Eat("&&")) {
        terms.push_back(std::move(set));
        set = {};
        continue;
      }
      if (in_.substr(pos_).starts_with("[:")) {
        const size_t end = in_.find(":]", pos_);
        if (end == std::string_view::npos || end - pos_ > 16) return Fail("a POSIX class is not closed");
        std::string_view name = in_.substr(pos_ + 2, end - pos_ - 2);
        const bool not_in = name.starts_with('^');
        if (not_in) name.remove_prefix(1);
        set.Add(PosixClass(name, not_in));
        pos_ = end + 2;
        continue;
      }
      if (Peek() == '[') {
        ASSIGN_OR_RETURN(const CharSet inner, ParseClass(depth + 1));
        set.Add(inner);
        continue;
      }
      RETURN_IF_ERROR(ClassItem(&set));
    }
    ++pos_;  // ]
    if (!terms.empty()) {
      terms.push_back(std::move(set));
      std::string all;
      for (size_t i = 0; i + 1 < terms.size(); ++i) all += "(?=" + terms[i].Emit() + ")";
      set = {};
      set.extra.push_back(all + terms.back().Emit());
    }
    set.negated = negated;
    return set;
  }

  /// One character, range or escape inside a class.
  Status ClassItem(CharSet* set) {
    char32_t low = 0;
    CharSet inner;
    ASSIGN_OR_RETURN(const bool single, ClassAtom(&inner, &low));
    if (!single) {
      set->Add(inner);
      return OkStatus();
    }
    if (Peek() == '-' && Peek(1) != ']' && Peek(1) != '[' && pos_ + 1 < in_.size()) {
      const size_t dash = pos_++;
      char32_t high = 0;
      ASSIGN_OR_RETURN(const bool range, ClassAtom(&inner, &high));
      if (range) {
        if (high < low) return Fail("a range in a class runs backwards");
        set->items += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", static_cast<uint32_t>(low), static_cast<uint32_t>(high));
        return OkStatus();
      }
      pos_ = dash;  // "a-\d": the dash is itself
    }
    set->items += fmt::format("\\x{{{:X}}}", static_cast<uint32_t>(low));
    return OkStatus();
  }

  Result<bool> ClassAtom(CharSet* set, char32_t* point) {
    if (Peek() == '\\') return ParseEscape(set, point);
    const Utf8Unit unit = DecodeUtf8(in_, pos_);
    if (!unit.valid) return Fail("invalid UTF-8");
    pos_ += unit.length;
    *point = unit.code_point;
    return true;
  }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_ = std::string::npos;  // where the last atom begins in out_
  std::vector<size_t> groups_;
};

}  // namespace

Result<std::string> TranslateRubyRegex(std::string_view pattern) {
  if (pattern.size() > kMaxPattern) {
    return Unsupported("a regular expression of {} bytes; at most {} are read", pattern.size(), kMaxPattern);
  }
  return Translator(pattern).Run();
}

}  // namespace kvasir
