#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/checked.h"
#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"
#include "text/jinja_text.h"
#include "text/jinja_unicode.h"

namespace kvasir::jinja {
namespace {

Status Overflow() { return Unsupported("an integer leaves the range of 64 bits"); }

std::string_view OpText(Op op) {
  static constexpr std::string_view kText[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kText[static_cast<size_t>(op)];
}

Status BadOperands(Op op, const Value& a, const Value& b) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  return InvalidData("unsupported operand type(s) for {}: '{}' and '{}'", OpText(op), a.TypeName(), b.TypeName());
}

Result<Value> IntPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return InvalidData("0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (uint64_t e = static_cast<uint64_t>(exponent); e > 0; e >>= 1) {
    if (e & 1) {
      const auto product = CheckedMul(result, base);
      if (!product) return Overflow();
      result = *product;
    }
    if (e > 1) {
      const auto square = CheckedMul(base, base);
      if (!square) return Overflow();
      base = *square;
    }
  }
  return Value(result);
}

Result<Value> IntArithmetic(Op op, int64_t a, int64_t b) {
  std::optional<int64_t> result;
  switch (op) {
    case Op::kAdd: result = CheckedAdd(a, b); break;
    case Op::kMul: result = CheckedMul(a, b); break;
    case Op::kPow: return IntPower(a, b);
    case Op::kSub: {
      int64_t difference;
      if (!__builtin_sub_overflow(a, b, &difference)) result = difference;
      break;
    }
    default: {
      if (b == 0) return InvalidData("division by zero");
      if (op == Op::kDiv) return Value(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
      if (b == -1) {
        if (op == Op::kMod) return Value(int64_t{0});
        if (a != std::numeric_limits<int64_t>::min()) result = -a;
        break;
      }
      // Python rounds towards minus infinity, and the remainder has the divisor's sign.
      const int64_t remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
      result = op == Op::kMod ? remainder + (adjust ? b : 0) : a / b - (adjust ? 1 : 0);
    }
  }
  if (!result) return Overflow();
  return Value(*result);
}

Result<Value> FloatArithmetic(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd: return Value(a + b);
    case Op::kSub: return Value(a - b);
    case Op::kMul: return Value(a * b);
    case Op::kPow: {
      if (a == 0 && b < 0) return InvalidData("0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(b) && b != std::floor(b)) return Unsupported("complex numbers are not supported");
      const double power = std::pow(a, b);
      if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) return InvalidData("result of ** is too large");
      return Value(power);
    }
    default: break;
  }
  if (b == 0) return InvalidData("float division by zero");
  if (op == Op::kDiv) return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (remainder == 0) remainder = std::copysign(0.0, b);
  if (op == Op::kMod) return Value(remainder);
  const double quotient = (a - remainder) / b;
  double floor = std::floor(quotient);
  if (quotient - floor > 0.5) floor += 1;
  return Value(quotient == 0 ? std::copysign(0.0, a / b) : floor);
}

Result<Value> RepeatValue(Runtime& runtime, const Value& value, int64_t times) {
  if (value.str()) {
    ASSIGN_OR_RETURN(Str text, Repeat(runtime.budget(), *value.str(), times));
    return Value(text.WithMarkup(value.str()->markup()));
  }
  const Sequence& sequence = *value.sequence();
  const auto total = CheckedMul<int64_t>(std::max<int64_t>(times, 0), static_cast<int64_t>(sequence.items.size()));
  if (!total) return runtime.budget().Exhausted();
  RETURN_IF_ERROR(runtime.budget().Charge(static_cast<uint64_t>(*total)));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(*total));
  for (int64_t i = 0; i < *total; ++i) items.push_back(sequence.items[static_cast<size_t>(i) % sequence.items.size()]);
  return MakeSequence(runtime.budget(), std::move(items), sequence.kind);
}

bool IsListOrTuple(const Value& v) { return v.sequence() && v.sequence()->kind <= SequenceKind::kTuple; }
bool CanRepeat(const Value& v) { return v.str() || IsListOrTuple(v); }

Result<Value> AddSequences(Runtime& runtime, const Sequence& a, const Sequence& b) {
  RETURN_IF_ERROR(runtime.budget().Charge(a.items.size() + b.items.size()));
  std::vector<Value> items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return MakeSequence(runtime.budget(), std::move(items), a.kind);
}

std::string StripNumber(std::string_view text) {
  text.remove_prefix(LeadingSpace(text));
  text.remove_suffix(TrailingSpace(text));
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool between = i > 0 && i + 1 < text.size() && isalnum(static_cast<unsigned char>(text[i - 1])) &&
                         isalnum(static_cast<unsigned char>(text[i + 1]));
    if (text[i] != '_' || !between) out += text[i];
  }
  return out;
}

}  // namespace

Result<Value> Arithmetic(Runtime& runtime, Op op, const Value& a, const Value& b) {
  RETURN_IF_ERROR(runtime.budget().Charge(1));
  if (a.IsInt() && b.IsInt()) return IntArithmetic(op, a.AsInt(), b.AsInt());
  if (a.IsNumber() && b.IsNumber()) return FloatArithmetic(op, a.AsDouble(), b.AsDouble());
  if (op == Op::kAdd) {
    if (a.str() && b.str()) {
      ASSIGN_OR_RETURN(Str text, Concat(runtime.budget(), *a.str(), *b.str()));
      return Value(std::move(text));
    }
    if (IsListOrTuple(a) && IsListOrTuple(b) && a.sequence()->kind == b.sequence()->kind) {
      return AddSequences(runtime, *a.sequence(), *b.sequence());
    }
    if (a.str() && !b.is_undefined()) {
      return InvalidData("can only concatenate str (not \"{}\") to str", b.TypeName());
    }
  }
  if (op == Op::kMul && CanRepeat(a) && b.IsInt()) return RepeatValue(runtime, a, b.AsInt());
  if (op == Op::kMul && CanRepeat(b) && a.IsInt()) return RepeatValue(runtime, b, a.AsInt());
  if (op == Op::kMod && a.str()) return FormatPercent(runtime, *a.str(), b);
  return BadOperands(op, a, b);
}

Result<Value> Sign(bool negative, const Value& a) {
  if (a.is_undefined()) return UndefinedError(a);
  if (a.real()) return Value(negative ? -*a.real() : *a.real());
  if (!a.IsInt()) return InvalidData("bad operand type for unary {}: '{}'", negative ? '-' : '+', a.TypeName());
  if (!negative) return Value(a.AsInt());
  if (a.AsInt() == std::numeric_limits<int64_t>::min()) return Overflow();
  return Value(-a.AsInt());
}

Result<bool> Compare(Runtime& runtime, Op op, const Value& a, const Value& b) {
  Budget& budget = runtime.budget();
  switch (op) {
    case Op::kEq: return Equal(budget, a, b);
    case Op::kNe: {
      ASSIGN_OR_RETURN(const bool equal, Equal(budget, a, b));
      return !equal;
    }
    case Op::kIn: return Contains(runtime, b, a);
    case Op::kNotIn: {
      ASSIGN_OR_RETURN(const bool contains, Contains(runtime, b, a));
      return !contains;
    }
    case Op::kLt: return Less(budget, a, b);
    case Op::kGt: return Less(budget, b, a);
    default: break;
  }
  // <= and >= are less or equal: the same for all that has an order, NaN included.
  ASSIGN_OR_RETURN(const bool less, op == Op::kLe ? Less(budget, a, b) : Less(budget, b, a));
  if (less) return true;
  return Equal(budget, a, b);
}

Result<bool> ParseInt(std::string_view text, int64_t base, int64_t& out) {
  if (base != 0 && (base < 2 || base > 36)) return InvalidData("int() base must be >= 2 and <= 36, or 0");
  std::string digits = StripNumber(text);
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  if (digits.size() > 2 && digits[0] == '0') {
    const char letter = static_cast<char>(digits[1] | 0x20);
    const int64_t prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix != 0 && (base == prefix || base == 0)) {
      digits.erase(0, 2);
      base = prefix;
    }
  }
  if (base == 0) base = 10;
  uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (digits.empty() || end != digits.data() + digits.size()) return false;
  const uint64_t limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) + (negative ? 1 : 0);
  if (error != std::errc() || value > limit) return Overflow();
  out = static_cast<int64_t>(negative ? ~value + 1 : value);
  return true;
}

bool ParseDouble(std::string_view text, double& out) {
  std::string digits = StripNumber(text);
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  std::transform(digits.begin(), digits.end(), digits.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (digits.empty() || digits[0] == '-' || digits.starts_with("nan(")) return false;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (end != digits.data() + digits.size() || error == std::errc::invalid_argument) return false;
  if (error == std::errc::result_out_of_range) {
    // Too large or too small: Python gives infinity or zero.
    const size_t e = digits.find('e');
    out = e != std::string::npos && digits[e + 1] == '-' ? 0.0 : std::numeric_limits<double>::infinity();
  }
  if (negative) out = -out;
  return true;
}

}  // namespace kvasir::jinja
