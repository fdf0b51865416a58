#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "text/jinja_unicode.h"

namespace kvasir::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Names are [A-Za-z0-9_] and any character beyond ASCII, but do not begin with a digit.
bool IsNameChar(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> Run() {
    while (position_ < source_.size()) RETURN_IF_ERROR(Root());
    tokens_.push_back({TokenType::kEnd, line_, {}});
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return source_.substr(position_); }
  bool At(std::string_view text) const { return Rest().starts_with(text); }

  Status Error(std::string_view what) const { return InvalidData("chat template, line {}: {}", line_, what); }

  void Advance(size_t bytes) {
    line_ += static_cast<uint32_t>(std::count(source_.begin() + static_cast<ptrdiff_t>(position_),
                                              source_.begin() + static_cast<ptrdiff_t>(position_ + bytes), '\n'));
    position_ += bytes;
  }

  // The text before a tag at `tag`, cut as its sign and lstrip_blocks say.
  std::string_view CutText(size_t tag, char sign, bool variable) const {
    std::string_view text = source_.substr(position_, tag - position_);
    if (sign == '-') return text.substr(0, text.size() - TrailingSpace(text));
    if (sign == '+' || variable) return text;
    const size_t newline = text.rfind('\n');
    if (newline == std::string_view::npos && !line_starting_) return text;
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    return LeadingSpace(text.substr(line)) == text.size() - line ? text.substr(0, line) : text;
  }

  void EmitData(std::string_view text) {
    if (!text.empty()) tokens_.push_back({TokenType::kData, line_, text});
  }

  // After a tag's end: with '-' all white space goes, else (trim) one newline.
  void SkipAfterTag(char sign, bool trim) {
    const size_t before = position_;
    if (sign == '-') {
      Advance(LeadingSpace(Rest()));
    } else if (trim && sign != '+' && At("\n")) {
      Advance(1);
    }
    line_starting_ = position_ > before && source_[position_ - 1] == '\n';
  }

  char SignAt(size_t position) const {
    if (position >= source_.size()) return 0;
    return source_[position] == '-' || source_[position] == '+' ? source_[position] : '\0';
  }

  // Length of `{%[-+]? WORD` with white space around the word at `position`, 0 where it is something else.
  size_t MatchWordTag(size_t position, std::string_view word) const {
    size_t p = position + 2;
    if (SignAt(p)) ++p;
    p += LeadingSpace(source_.substr(p));
    if (!source_.substr(p).starts_with(word)) return 0;
    p += word.size();
    p += LeadingSpace(source_.substr(p));
    return p - position;
  }

  Status Root() {
    size_t tag = position_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        EmitData(Rest());
        Advance(source_.size() - position_);
        return OkStatus();
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign = SignAt(tag + 2);
    EmitData(CutText(tag, sign, kind == '{'));
    Advance(tag - position_);
    if (kind == '#') return Comment(sign);
    if (kind == '%') {
      if (const size_t raw = MatchWordTag(tag, "raw")) {
        const std::string_view rest = source_.substr(tag + raw);
        if (rest.starts_with("-%}") || rest.starts_with("%}")) return Raw(raw);
      }
    }
    const bool block = kind == '%';
    tokens_.push_back({block ? TokenType::kBlockBegin : TokenType::kVariableBegin, line_, source_.substr(tag, 2)});
    Advance(sign ? 3 : 2);
    return Tag(block);
  }

  Status Comment(char sign) {
    const size_t content = position_ + (sign ? 3 : 2);
    if (content >= source_.size()) {  // as in Jinja, a comment that begins at the very end is one
      Advance(source_.size() - position_);
      return OkStatus();
    }
    const size_t end = source_.find("#}", content);
    if (end == std::string_view::npos) return Error("missing end of comment tag");
    const char end_sign = end > content ? SignAt(end - 1) : '\0';
    Advance(end + 2 - position_);
    SkipAfterTag(end_sign, true);
    return OkStatus();
  }

  Status Raw(size_t begin_length) {
    Advance(begin_length);
    const char begin_sign = At("-") ? '-' : '\0';
    Advance(begin_sign ? 3 : 2);
    SkipAfterTag(begin_sign, false);
    if (position_ >= source_.size()) return OkStatus();
    for (size_t tag = position_; (tag = source_.find("{%", tag)) != std::string_view::npos; ++tag) {
      const size_t length = MatchWordTag(tag, "endraw");
      if (!length) continue;
      const std::string_view rest = source_.substr(tag + length);
      const char end_sign = rest.empty() || (rest[0] != '-' && rest[0] != '+') ? '\0' : rest[0];
      if (!rest.substr(end_sign ? 1 : 0).starts_with("%}")) continue;
      EmitData(CutText(tag, SignAt(tag + 2), false));
      Advance(tag + length + (end_sign ? 3 : 2) - position_);
      SkipAfterTag(end_sign, true);
      return OkStatus();
    }
    return Error("missing end of raw directive");
  }

  // Tokens inside {{ }} or {% %}.
  Status Tag(bool block) {
    std::string open;  // brackets that still need to be closed
    while (position_ < source_.size()) {
      if (const size_t space = LeadingSpace(Rest())) {
        Advance(space);
        continue;
      }
      if (open.empty()) {
        const std::string_view end = block ? "%}" : "}}";
        const bool may_sign = At("-") || (block && At("+"));
        if (At(end) || (may_sign && Rest().substr(1).starts_with(end))) {
          const char sign = may_sign ? source_[position_] : '\0';
          tokens_.push_back({block ? TokenType::kBlockEnd : TokenType::kVariableEnd, line_, end});
          Advance(sign ? 3 : 2);
          SkipAfterTag(sign, block);
          return OkStatus();
        }
      }
      RETURN_IF_ERROR(TagToken(open));
    }
    return Error(block ? "unexpected end of template, '%}' is missing" : "unexpected end of template, '}}' is missing");
  }

  Status TagToken(std::string& open) {
    const char c = source_[position_];
    TokenType type = TokenType::kOperator;
    size_t length = 0;
    if (IsDigit(c)) {
      length = Number(type);
    } else if (IsNameChar(c)) {
      type = TokenType::kName;
      while (position_ + length < source_.size() && IsNameChar(source_[position_ + length])) ++length;
    } else if (c == '\'' || c == '"') {
      type = TokenType::kString;
      length = 1;
      while (position_ + length < source_.size() && source_[position_ + length] != c) {
        length += source_[position_ + length] == '\\' ? 2 : 1;
      }
      if (position_ + length >= source_.size()) return Error("a string has no closing quote");
      ++length;
    } else {
      length = Operator();
      if (length == 0) return Error(fmt::format("unexpected character '{}'", c));
      RETURN_IF_ERROR(Balance(c, open));
    }
    tokens_.push_back({type, line_, source_.substr(position_, length)});
    Advance(length);
    return OkStatus();
  }

  size_t Operator() const {
    static constexpr std::array<std::string_view, 6> kTwo = {"//", "**", "==", "!=", ">=", "<="};
    for (std::string_view two : kTwo) {
      if (At(two)) return 2;
    }
    return std::string_view("+-/*%~[](){}><=.:|,;").find(source_[position_]) != std::string_view::npos;
  }

  Status Balance(char c, std::string& open) const {
    if (c == '(') open += ')';
    if (c == '[') open += ']';
    if (c == '{') open += '}';
    if (c != ')' && c != ']' && c != '}') return OkStatus();
    if (open.empty()) return Error(fmt::format("unexpected '{}'", c));
    if (open.back() != c) return Error(fmt::format("unexpected '{}', expected '{}'", c, open.back()));
    open.pop_back();
    return OkStatus();
  }

  // Digits with single underscores between them, from p on; returns the end.
  size_t Digits(size_t p, std::string_view digits) const {
    const auto is_digit = [&](size_t i) {
      return i < source_.size() && digits.find(source_[i]) != std::string_view::npos;
    };
    while (is_digit(p) || (p < source_.size() && source_[p] == '_' && is_digit(p + 1))) ++p;
    return p;
  }

  size_t Number(TokenType& type) const {
    constexpr std::string_view kDecimal = "0123456789";
    type = TokenType::kInteger;
    const size_t begin = position_;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    if (source_[begin] == '0' && begin + 1 < source_.size()) {
      const char base = static_cast<char>(source_[begin + 1] | 0x20);
      const std::string_view digits = base == 'b'   ? "01"
                                      : base == 'o' ? "01234567"
                                      : base == 'x' ? "0123456789abcdefABCDEF"
                                                    : "";
      const size_t end = Digits(begin + 2, digits);
      if (!digits.empty() && end > begin + 2) return end - begin;
    }
    size_t end = Digits(begin, kDecimal);
    if (after_dot) return end - begin;
    size_t fraction = end;
    if (end + 1 < source_.size() && source_[end] == '.' && IsDigit(source_[end + 1])) {
      fraction = Digits(end + 1, kDecimal);
    }
    size_t exponent = fraction;
    if (exponent < source_.size() && (source_[exponent] | 0x20) == 'e') {
      size_t p = exponent + 1;
      if (p < source_.size() && (source_[p] == '+' || source_[p] == '-')) ++p;
      if (p < source_.size() && IsDigit(source_[p])) exponent = Digits(p, kDecimal);
    }
    if (exponent > end) type = TokenType::kFloat;
    return exponent - begin;
  }

  std::string_view source_;
  size_t position_ = 0;
  uint32_t line_ = 1;
  bool line_starting_ = true;  // whether the text that follows begins a line
  std::vector<Token> tokens_;
};

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Reads exactly `count` hex digits; -1 where they are missing.
int64_t ReadHex(std::string_view text, size_t count) {
  if (text.size() < count) return -1;
  int64_t value = 0;
  for (char c : text.substr(0, count)) {
    if (HexValue(c) < 0) return -1;
    value = value * 16 + HexValue(c);
  }
  return value;
}

}  // namespace

std::string NormalizeSource(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

Result<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

Result<std::string> DecodeStringLiteral(const Token& token) {
  const std::string_view text = token.text.substr(1, token.text.size() - 2);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const char c = text[++i];  // the lexer saw to it that something follows
    static constexpr std::string_view kPlain = "\\'\"abfnrtv", kDecoded = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t plain = kPlain.find(c); plain != std::string_view::npos) {
      out += kDecoded[plain];
    } else if (c == '\n') {
      continue;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      const int64_t value = ReadHex(text.substr(i + 1), count);
      if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
        return InvalidData("chat template, line {}: '\\{}' in a string is not followed by a character's {} hex digits",
                           token.line, c, count);
      }
      AppendUtf8(out, static_cast<char32_t>(value));
      i += count;
    } else if (c >= '0' && c <= '7') {
      char32_t value = 0;
      size_t digits = 0;
      for (; digits < 3 && i < text.size() && text[i] >= '0' && text[i] <= '7'; ++digits, ++i) {
        value = value * 8 + static_cast<char32_t>(text[i] - '0');
      }
      --i;
      AppendUtf8(out, value);
    } else if (c == 'N') {
      return Unsupported("chat template, line {}: \\N{{…}} in a string; write the character itself", token.line);
    } else {
      out += '\\';
      out += c;
    }
  }
  return out;
}

}  // namespace kvasir::jinja
