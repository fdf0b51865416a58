#include <cmath>
#include <limits>

#include "base/checked.h"
#include "text/jinja_filters.h"
#include "text/jinja_text.h"
#include "text/jinja_unicode.h"

namespace kvasir::jinja {
namespace {

// Jinja's soft_str: strings stay (markup too), the rest is printed. Pays for looking at the string once.
Result<Str> SoftStr(Runtime& runtime, const Value& value) {
  ASSIGN_OR_RETURN(Str text, ToStr(runtime.budget(), value));
  RETURN_IF_ERROR(runtime.budget().Charge(text.size()));
  return text;
}

Result<Value> Trim(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("trim", args, {"chars"}));
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  if (!bound[0] || bound[0]->is_none()) return Value(Strip(text, nullptr, Side::kBoth));
  ASSIGN_OR_RETURN(const Str chars, StrArg(runtime, "trim", bound[0], ""));
  RETURN_IF_ERROR(runtime.budget().Charge(8 * chars.size()));
  return Value(Strip(text, &chars, Side::kBoth));
}

template <CaseStyle kStyle>
Result<Value> Case(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("upper", args, {}).status());
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  ASSIGN_OR_RETURN(Str result, ChangeCase(runtime.budget(), text, kStyle));
  return Value(result.WithMarkup(text.markup()));
}

Result<Value> Title(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("title", args, {}).status());
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  ASSIGN_OR_RETURN(Str result, TitleFilter(runtime.budget(), text));
  return Value(std::move(result));
}

Result<Value> ReplaceFilter(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("replace", args, {"old", "new", "count"}, 2));
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  ASSIGN_OR_RETURN(const Str old, ToStr(runtime.budget(), *bound[0]));
  ASSIGN_OR_RETURN(const Str with, ToStr(runtime.budget(), *bound[1]));
  const bool all = !bound[2] || bound[2]->is_none();
  ASSIGN_OR_RETURN(const int64_t count, IntArg("replace", all ? nullptr : bound[2], -1));
  ASSIGN_OR_RETURN(Str result, Replace(runtime.budget(), text, old, with, count));
  return Value(std::move(result));
}

Result<Value> String(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("string", args, {}).status());
  ASSIGN_OR_RETURN(Str text, ToStr(runtime.budget(), input));
  return Value(std::move(text));
}

Result<Value> Safe(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("safe", args, {}).status());
  ASSIGN_OR_RETURN(const Str text, ToStr(runtime.budget(), input));
  return Value(text.WithMarkup(true));
}

template <bool kForce>
Result<Value> Escape(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("escape", args, {}).status());
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  ASSIGN_OR_RETURN(Str escaped, EscapeHtml(runtime.budget(), kForce ? text.WithMarkup(false) : text));
  return Value(std::move(escaped));
}

Result<Value> ToJsonFilter(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound,
                   BindArgs("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = bound[0] && bound[0]->Truth();
  style.sort_keys = bound[3] && bound[3]->Truth();
  if (bound[1] && !bound[1]->is_none()) {
    style.indented = true;
    style.item_separator = Str::Trusted(",");
    if (bound[1]->str()) {
      style.indent = *bound[1]->str();
    } else {
      ASSIGN_OR_RETURN(const int64_t width, IntArg("tojson", bound[1], 0));
      ASSIGN_OR_RETURN(style.indent, Repeat(runtime.budget(), Str::Trusted(" "), width));
    }
  }
  if (bound[2] && !bound[2]->is_none()) {
    const Sequence* pair = bound[2]->sequence();
    if (!pair || pair->items.size() != 2 || !pair->items[0].str() || !pair->items[1].str()) {
      return InvalidData("tojson(): separators must be two strings");
    }
    style.item_separator = *pair->items[0].str();
    style.key_separator = *pair->items[1].str();
  }
  ASSIGN_OR_RETURN(Str json, ToJson(runtime.budget(), input, style));
  return Value(std::move(json));
}

Result<Value> Indent(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("indent", args, {"width", "first", "blank"}));
  ASSIGN_OR_RETURN(const Str text, StrArg(runtime, "indent", &input, ""));
  RETURN_IF_ERROR(runtime.budget().Charge(text.size()));
  Str indention;
  if (bound[0] && bound[0]->str()) {
    indention = *bound[0]->str();
  } else {
    ASSIGN_OR_RETURN(const int64_t width, IntArg("indent", bound[0], 4));
    ASSIGN_OR_RETURN(indention, Repeat(runtime.budget(), Str::Trusted(" "), width));
  }
  const bool first = bound[1] && bound[1]->Truth(), blank = bound[2] && bound[2]->Truth();
  StrBuilder with_end(runtime.budget());
  with_end.Append(text);
  with_end.Append("\n");  // Jinja adds it too: an empty last line then counts
  ASSIGN_OR_RETURN(const Str whole, std::move(with_end).Finish());
  const std::vector<Str> lines = SplitLines(whole, false);
  StrBuilder out(runtime.budget());
  for (size_t i = 0; i < lines.size() && !out.failed(); ++i) {
    if (i > 0) out.Append("\n");
    if (i == 0 ? first : blank || !lines[i].empty()) out.Append(indention);
    out.Append(lines[i]);
  }
  ASSIGN_OR_RETURN(Str result, std::move(out).Finish());
  return Value(std::move(result));
}

Result<Value> Default(Runtime&, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("default", args, {"default_value", "boolean"}));
  const bool use = input.is_undefined() || (bound[1] && bound[1]->Truth() && !input.Truth());
  if (!use) return input;
  return bound[0] ? *bound[0] : Value(Str());
}

// A float as an integer: false where it has no value there (infinite, NaN).
Result<bool> Truncate(double value, int64_t& out) {
  if (!std::isfinite(value)) return false;
  if (!(std::fabs(value) < 9.2233720368547758e18)) return Unsupported("an integer leaves the range of 64 bits");
  out = static_cast<int64_t>(value);
  return true;
}

Result<Value> Int(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("int", args, {"default", "base"}));
  ASSIGN_OR_RETURN(const int64_t base, IntArg("int", bound[1], 10));
  const Value fallback = bound[0] ? *bound[0] : Value(int64_t{0});
  if (input.is_undefined()) return UndefinedError(input);
  if (input.IsInt()) return Value(input.AsInt());
  int64_t value = 0;
  double number = 0;
  if (input.real()) {
    number = *input.real();
  } else if (input.str()) {
    RETURN_IF_ERROR(runtime.budget().Charge(input.str()->size()));
    ASSIGN_OR_RETURN(const bool whole, ParseInt(input.str()->view(), base, value));
    if (whole) return Value(value);
    if (!ParseDouble(input.str()->view(), number)) return fallback;  // "42.23" gives 42
  } else {
    return fallback;
  }
  ASSIGN_OR_RETURN(const bool finite, Truncate(number, value));
  return finite ? Value(value) : fallback;
}

Result<Value> Float(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("float", args, {"default"}));
  if (input.is_undefined()) return UndefinedError(input);
  if (input.IsNumber()) return Value(input.AsDouble());
  double value = 0;
  if (input.str()) {
    RETURN_IF_ERROR(runtime.budget().Charge(input.str()->size()));
    if (ParseDouble(input.str()->view(), value)) return Value(value);
  }
  return bound[0] ? *bound[0] : Value(0.0);
}

Result<Value> Abs(Runtime&, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("abs", args, {}).status());
  if (input.real()) return Value(std::fabs(*input.real()));
  return Sign(input.IsInt() && input.AsInt() < 0, input);
}

// Python's round(): the decimal that is nearest to the exact value, ties to even.
double RoundHalfEven(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 323) return value;
  if (precision < -308) return std::copysign(0.0, value);
  if (precision < 0) {
    const double power = std::pow(10.0, static_cast<double>(-precision));
    return std::nearbyint(value / power) * power;
  }
  double result = value;
  ParseDouble(fmt::format("{:.{}f}", value, precision), result);
  return result;
}

Result<Value> Round(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("round", args, {"precision", "method"}));
  ASSIGN_OR_RETURN(const int64_t precision, IntArg("round", bound[0], 0));
  ASSIGN_OR_RETURN(const Str method, StrArg(runtime, "round", bound[1], "common"));
  if (input.is_undefined()) return UndefinedError(input);
  if (!input.IsNumber()) return InvalidData("round(): a number is required, not '{}'", input.TypeName());
  if (method.view() == "common") {
    if (!input.IsInt() || precision < 0) return Value(RoundHalfEven(input.AsDouble(), precision));
    return Value(input.AsInt());
  }
  if (method.view() != "ceil" && method.view() != "floor") {
    return InvalidData("round(): the method must be common, ceil or floor");
  }
  const double power = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.AsDouble() * power;
  return Value((method.view() == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / power);
}

Result<Value> WordCount(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("wordcount", args, {}).status());
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  int64_t count = 0;
  bool inside = false;
  ForEachChar(text.view(), [&](char32_t c, size_t) {
    const bool word = IsAlpha(c) || IsNumeric(c) || c == '_';
    count += word && !inside;
    inside = word;
  });
  return Value(count);
}

Result<Value> Truncated(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("truncate", args, {"length", "killwords", "end", "leeway"}));
  ASSIGN_OR_RETURN(const Str text, StrArg(runtime, "truncate", &input, ""));
  ASSIGN_OR_RETURN(const int64_t length, IntArg("truncate", bound[0], 255));
  ASSIGN_OR_RETURN(const Str end, StrArg(runtime, "truncate", bound[2], "..."));
  const bool no_leeway = !bound[3] || bound[3]->is_none();
  ASSIGN_OR_RETURN(const int64_t leeway, IntArg("truncate", no_leeway ? nullptr : bound[3], 5));
  if (std::cmp_less(length, end.chars()) || leeway < 0) return InvalidData("truncate(): the length is too small");
  if (leeway >= static_cast<int64_t>(text.chars()) || std::cmp_less_equal(text.chars(), length + leeway)) return input;
  ASSIGN_OR_RETURN(Str head,
                   SliceChars(runtime.budget(), text, std::nullopt, length - static_cast<int64_t>(end.chars()), 1));
  if (!bound[1] || !bound[1]->Truth()) {
    const Str space = Str::Trusted(" ");
    ASSIGN_OR_RETURN(const std::vector<Str> parts, Split(runtime.budget(), head, &space, 1, true));
    head = parts[0];
  }
  ASSIGN_OR_RETURN(Str result, Concat(runtime.budget(), head, end));
  return Value(std::move(result));
}

Result<Value> Center(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("center", args, {"width"}));
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  return FindStrMethod("center")(runtime, Value(text), {{bound[0] ? *bound[0] : Value(int64_t{80})}, {}});
}

Result<Value> Format(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const Str text, SoftStr(runtime, input));
  if (!args.positional.empty() && !args.named.empty()) {
    return InvalidData("format: positional and keyword arguments cannot be given at the same time");
  }
  if (args.named.empty()) {
    ASSIGN_OR_RETURN(const Value tuple, MakeSequence(runtime.budget(), args.positional, SequenceKind::kTuple));
    return FormatPercent(runtime, text, tuple);
  }
  Dict dict;
  for (const auto& [name, value] : args.named) RETURN_IF_ERROR(dict.Set(MakeStr(name), value));
  ASSIGN_OR_RETURN(const Value mapping, MakeDict(runtime.budget(), std::move(dict)));
  return FormatPercent(runtime, text, mapping);
}

}  // namespace

const FilterTable& ScalarFilters() {
  static const FilterTable kTable = {
      {"trim", Trim},
      {"upper", Case<CaseStyle::kUpper>},
      {"lower", Case<CaseStyle::kLower>},
      {"capitalize", Case<CaseStyle::kCapitalize>},
      {"title", Title},
      {"replace", ReplaceFilter},
      {"string", String},
      {"safe", Safe},
      {"escape", Escape<false>},
      {"e", Escape<false>},
      {"forceescape", Escape<true>},
      {"tojson", ToJsonFilter},
      {"indent", Indent},
      {"default", Default},
      {"d", Default},
      {"int", Int},
      {"float", Float},
      {"abs", Abs},
      {"round", Round},
      {"wordcount", WordCount},
      {"truncate", Truncated},
      {"center", Center},
      {"format", Format},
  };
  return kTable;
}

}  // namespace kvasir::jinja
