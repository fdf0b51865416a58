// Python's two ways to format: "%s" % x, and "{}".format(x).
#include <algorithm>
#include <cctype>
#include <cmath>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace kvasir::jinja {
namespace {

constexpr int64_t kMaxWidth = 100'000;  // of one field; wider fields are an error
constexpr int64_t kMaxPrecision = 300;  // digits after the point

// A format specification of either kind.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > = ^
  char sign = '-';    // + - or space
  bool alternate = false;
  bool comma = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

std::string Group(std::string digits) {
  size_t end = std::min(digits.find_first_of(".e"), digits.size());
  for (; end > 3; end -= 3) digits.insert(end - 3, ",");
  return digits;
}

// Pads a number (sign, digits) or a text (no sign) to the width.
Status Pad(StrBuilder& out, const Spec& spec, char default_align, std::string_view sign, const Str& body) {
  const char align = spec.align ? spec.align : default_align;
  const auto length = static_cast<int64_t>(sign.size() + body.chars());
  const int64_t pad = std::max<int64_t>(0, spec.width - length);
  const int64_t before = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
  if (align == '=') out.Append(sign);
  for (int64_t i = 0; i < before; ++i) out.Append(spec.fill);
  if (align != '=') out.Append(sign);
  out.Append(body);
  for (int64_t i = before; i < pad; ++i) out.Append(spec.fill);
  return out.status();
}

std::string SignText(const Spec& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

Status FormatInt(StrBuilder& out, const Spec& spec, int64_t value) {
  const uint64_t magnitude = value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  std::string digits, prefix;
  switch (spec.type) {
    case 'x': digits = fmt::format("{:x}", magnitude), prefix = "0x"; break;
    case 'X': digits = fmt::format("{:X}", magnitude), prefix = "0X"; break;
    case 'o': digits = fmt::format("{:o}", magnitude), prefix = "0o"; break;
    case 'b': digits = fmt::format("{:b}", magnitude), prefix = "0b"; break;
    default: digits = fmt::format("{}", magnitude);
  }
  if (spec.comma) digits = Group(std::move(digits));
  return Pad(out, spec, '>', SignText(spec, value < 0) + (spec.alternate ? prefix : ""), Str::Trusted(digits));
}

Status FormatDouble(StrBuilder& out, const Spec& spec, double value) {
  const double magnitude = std::fabs(value);
  std::string digits;
  const char type = static_cast<char>(std::tolower(spec.type));
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
  } else if (type == '\0' && spec.precision < 0) {
    digits = PrintDouble(magnitude);
  } else {
    const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
    switch (type) {
      case 'f': digits = fmt::format("{:.{}f}", magnitude, precision); break;
      case '%': digits = fmt::format("{:.{}f}%", magnitude * 100, precision); break;
      case 'e': digits = fmt::format("{:.{}e}", magnitude, precision); break;
      default: digits = fmt::format("{:.{}g}", magnitude, precision == 0 ? 1 : precision);
    }
    if (type == '\0' && digits.find_first_of(".e") == std::string::npos) digits += ".0";
  }
  if (spec.comma) digits = Group(std::move(digits));
  if (std::isupper(static_cast<unsigned char>(spec.type))) {
    std::transform(digits.begin(), digits.end(), digits.begin(), [](char c) { return static_cast<char>(toupper(c)); });
  }
  return Pad(out, spec, '>', SignText(spec, std::signbit(value) && !std::isnan(value)), Str::Trusted(digits));
}

Status FormatText(StrBuilder& out, const Spec& spec, const Str& text, char default_align) {
  if (spec.precision < 0) return Pad(out, spec, default_align, "", text);
  return Pad(out, spec, default_align, "", text.Slice(0, text.ByteOfChar(static_cast<size_t>(spec.precision))));
}

// Digits as a bounded number; -1 where there are none.
Result<int64_t> ReadNumber(std::string_view text, size_t& at, int64_t limit) {
  int64_t value = -1;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    value = std::max<int64_t>(value, 0) * 10 + (text[at] - '0');
    if (value > limit) return InvalidData("a width or precision in a format is larger than {}", limit);
  }
  return value;
}

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Str& text, const Value& args)
      : runtime_(runtime), text_(text), args_(args), out_(runtime.budget()) {}

  Result<Value> Run() {
    const std::string_view view = text_.view();
    for (size_t at = 0; at < view.size();) {
      const size_t percent = std::min(view.find('%', at), view.size());
      out_.AppendSlice(text_, at, percent);
      at = percent;
      if (at < view.size()) RETURN_IF_ERROR(Directive(at));
      RETURN_IF_ERROR(out_.status());
    }
    const bool tuple = args_.sequence() && args_.sequence()->kind == SequenceKind::kTuple;
    const size_t given = tuple ? args_.sequence()->items.size() : 1;
    if (used_ < given && !args_.dict() && (tuple || !args_.sequence())) {
      return InvalidData("not all arguments converted during string formatting");
    }
    ASSIGN_OR_RETURN(Str result, std::move(out_).Finish());
    return Value(std::move(result));
  }

 private:
  Result<Value> NextArgument() {
    const bool tuple = args_.sequence() && args_.sequence()->kind == SequenceKind::kTuple;
    const size_t given = tuple ? args_.sequence()->items.size() : 1;
    if (used_ >= given) return InvalidData("not enough arguments for format string");
    const size_t index = used_++;
    return tuple ? args_.sequence()->items[index] : args_;
  }

  Status Directive(size_t& at) {
    const std::string_view view = text_.view();
    ++at;
    std::optional<Value> argument;
    if (at < view.size() && view[at] == '(') {
      const size_t end = view.find(')', at);
      if (end == std::string_view::npos) return InvalidData("incomplete format key");
      if (!args_.dict()) return InvalidData("format requires a mapping");
      const Value* found = args_.dict()->Find(view.substr(at + 1, end - at - 1));
      if (!found) return InvalidData("the format names a key that is missing");
      argument = *found;
      at = end + 1;
    }
    Spec spec;
    for (; at < view.size() && std::string_view("-+ #0").find(view[at]) != std::string_view::npos; ++at) {
      if (view[at] == '-') spec.align = '<';
      if (view[at] == '+') spec.sign = '+';
      if (view[at] == ' ' && spec.sign != '+') spec.sign = ' ';
      if (view[at] == '#') spec.alternate = true;
      if (view[at] == '0') spec.fill = "0";
    }
    ASSIGN_OR_RETURN(const int64_t width, ReadNumber(view, at, kMaxWidth));
    spec.width = std::max<int64_t>(width, 0);
    if (at < view.size() && view[at] == '.') {
      ASSIGN_OR_RETURN(const int64_t precision, ReadNumber(view, ++at, kMaxPrecision));
      spec.precision = std::max<int64_t>(precision, 0);
    }
    if (at >= view.size()) return InvalidData("incomplete format");
    spec.type = view[at++];
    if (spec.type == '%') {
      out_.Append("%");
      return out_.status();
    }
    if (!argument) {
      ASSIGN_OR_RETURN(argument, NextArgument());
    }
    return Convert(spec, *argument);
  }

  Status Convert(Spec& spec, const Value& value) {
    const bool number = std::string_view("diuxXofFeEgG").find(spec.type) != std::string_view::npos;
    if (spec.align == '<' || !number) spec.fill = " ";
    if (spec.fill == "0" && spec.align == '\0') spec.align = '=';
    if (spec.type == 's' || spec.type == 'r') {
      StrBuilder text(runtime_.budget());
      RETURN_IF_ERROR(spec.type == 's' ? PrintTo(runtime_.budget(), value, text)
                                       : ReprTo(runtime_.budget(), value, text));
      ASSIGN_OR_RETURN(const Str body, std::move(text).Finish());
      return FormatText(out_, spec, body, '>');
    }
    if (!number) return Unsupported("format character '{}' is not supported", spec.type);
    if (value.is_undefined()) return UndefinedError(value);
    if (!value.IsNumber()) return InvalidData("%{} format: a number is required, not {}", spec.type, value.TypeName());
    if (std::string_view("diuxXo").find(spec.type) == std::string_view::npos) {
      return FormatDouble(out_, spec, value.AsDouble());
    }
    if (value.IsInt()) return FormatInt(out_, spec, value.AsInt());
    if (spec.type == 'x' || spec.type == 'X' || spec.type == 'o') {
      return InvalidData("%{} format: an integer is required, not float", spec.type);
    }
    if (!(std::fabs(*value.real()) < 9.2e18)) return Unsupported("a number is too large for an integer format");
    return FormatInt(out_, spec, static_cast<int64_t>(*value.real()));
  }

  Runtime& runtime_;
  const Str& text_;
  const Value& args_;
  StrBuilder out_;
  size_t used_ = 0;
};

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Str& text, const CallArgs& args)
      : runtime_(runtime), text_(text), args_(args), out_(runtime.budget()) {}

  Result<Value> Run() {
    const std::string_view view = text_.view();
    for (size_t at = 0; at < view.size();) {
      const size_t brace = std::min(view.find_first_of("{}", at), view.size());
      out_.AppendSlice(text_, at, brace);
      at = brace;
      if (at >= view.size()) break;
      if (at + 1 < view.size() && view[at + 1] == view[at]) {
        out_.AppendSlice(text_, at, at + 1);
        at += 2;
      } else if (view[at] == '}') {
        return InvalidData("single '}}' encountered in format string");
      } else {
        const size_t end = view.find('}', at);
        if (end == std::string_view::npos) return InvalidData("expected '}}' before end of string");
        RETURN_IF_ERROR(Field(view.substr(at + 1, end - at - 1)));
        at = end + 1;
      }
      RETURN_IF_ERROR(out_.status());
    }
    ASSIGN_OR_RETURN(Str result, std::move(out_).Finish());
    return Value(std::move(result));
  }

 private:
  // name!conversion:spec
  Status Field(std::string_view field) {
    if (field.find('{') != std::string_view::npos) return Unsupported("nested fields in format() are not supported");
    const size_t colon = std::min(field.find(':'), field.size());
    std::string_view name = field.substr(0, colon);
    const std::string_view spec_text = field.substr(std::min(colon + 1, field.size()));
    char conversion = '\0';
    if (name.size() >= 2 && name[name.size() - 2] == '!') {
      conversion = name.back();
      name.remove_suffix(2);
    }
    ASSIGN_OR_RETURN(Value value, Argument(name));
    if (conversion == 'r' || conversion == 's') {
      StrBuilder text(runtime_.budget());
      RETURN_IF_ERROR(conversion == 's' ? PrintTo(runtime_.budget(), value, text)
                                        : ReprTo(runtime_.budget(), value, text));
      ASSIGN_OR_RETURN(value, std::move(text).Finish());
    } else if (conversion) {
      return Unsupported("conversion '!{}' in format() is not supported", conversion);
    }
    ASSIGN_OR_RETURN(const Spec spec, ParseSpec(spec_text));
    return Format(spec, value, spec_text.empty());
  }

  // The argument that `name` (with .attributes and [items]) means.
  Result<Value> Argument(std::string_view name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, at);
    Value value;
    if (first.empty() || std::all_of(first.begin(), first.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      size_t position = 0;
      int64_t index = next_;
      if (first.empty()) {
        ++next_;
      } else {
        ASSIGN_OR_RETURN(index, ReadNumber(first, position, kMaxWidth));
      }
      if (std::cmp_greater_equal(index, args_.positional.size())) {
        return InvalidData("replacement index {} out of range for positional args tuple", index);
      }
      value = args_.positional[static_cast<size_t>(index)];
    } else {
      const auto it =
          std::find_if(args_.named.begin(), args_.named.end(), [&](const auto& a) { return a.first == first; });
      if (it == args_.named.end()) return InvalidData("format() misses the argument '{}'", first.substr(0, 100));
      value = it->second;
    }
    while (at < name.size()) {
      const bool item = name[at] == '[';
      const size_t end = item ? name.find(']', at) : std::min(name.find_first_of(".[", at + 1), name.size());
      if (end == std::string_view::npos) return InvalidData("missing ']' in format string");
      const std::string_view key = name.substr(at + 1, end - at - 1);
      int64_t index = 0;
      ASSIGN_OR_RETURN(const bool number, ParseInt(key, 10, index));
      if (item) {
        ASSIGN_OR_RETURN(value, GetItem(runtime_, value, number ? Value(index) : MakeStr(key)));
      } else {
        ASSIGN_OR_RETURN(value, GetAttribute(runtime_, value, key));
      }
      at = end + (item ? 1 : 0);
    }
    return value;
  }

  // [[fill]align][sign][#][0][width][,][.precision][type]
  static Result<Spec> ParseSpec(std::string_view text) {
    Spec spec;
    size_t at = 0;
    const auto is_align = [&](size_t i) {
      return i < text.size() && std::string_view("<>=^").find(text[i]) != std::string_view::npos;
    };
    const size_t first = text.empty() ? 0 : DecodeUtf8(text, 0).length;
    if (first > 0 && is_align(first)) {
      spec.fill = std::string(text.substr(0, first));
      spec.align = text[first];
      at = first + 1;
    } else if (is_align(0)) {
      spec.align = text[at++];
    }
    const auto take = [&](char c) {
      if (at >= text.size() || text[at] != c) return false;
      ++at;
      return true;
    };
    if (at < text.size() && std::string_view("+- ").find(text[at]) != std::string_view::npos) spec.sign = text[at++];
    spec.alternate = take('#');
    if (take('0') && !spec.align) {
      spec.fill = "0";
      spec.align = '=';
    }
    ASSIGN_OR_RETURN(const int64_t width, ReadNumber(text, at, kMaxWidth));
    spec.width = std::max<int64_t>(width, 0);
    spec.comma = take(',');
    if (take('.')) {
      ASSIGN_OR_RETURN(spec.precision, ReadNumber(text, at, kMaxPrecision));
      if (spec.precision < 0) return InvalidData("format specifier missing precision");
    }
    if (at < text.size()) spec.type = text[at++];
    if (at < text.size()) return InvalidData("invalid format specifier '{}'", text.substr(0, 60));
    return spec;
  }

  Status Format(Spec spec, const Value& value, bool plain) {
    if (value.IsNumber() && !plain && !(value.boolean() && spec.type == '\0')) {
      const bool float_type = std::string_view("fFeEgG%").find(spec.type) != std::string_view::npos;
      const bool int_type = std::string_view("dxXobn").find(spec.type) != std::string_view::npos;
      if (spec.type != '\0' && !float_type && !(int_type && value.IsInt())) {
        return InvalidData("unknown format code '{}' for object of type '{}'", spec.type, value.TypeName());
      }
      if (value.real() || (float_type && spec.type != '\0')) return FormatDouble(out_, spec, value.AsDouble());
      return FormatInt(out_, spec, value.AsInt());
    }
    if (!plain && !value.str() && !value.boolean()) {
      return InvalidData("unsupported format string passed to {}.__format__", value.TypeName());
    }
    if (spec.type != '\0' && spec.type != 's') {
      return InvalidData("unknown format code '{}' for object of type '{}'", spec.type, value.TypeName());
    }
    ASSIGN_OR_RETURN(const Str text, ToStr(runtime_.budget(), value));
    if (spec.align == '=' && value.str()) return InvalidData("'=' alignment not allowed in string format specifier");
    return FormatText(out_, spec, text, '<');
  }

  Runtime& runtime_;
  const Str& text_;
  const CallArgs& args_;
  StrBuilder out_;
  int64_t next_ = 0;  // of the fields without a name
};

}  // namespace

Result<Value> FormatPercent(Runtime& runtime, const Str& text, const Value& args) {
  RETURN_IF_ERROR(runtime.budget().Charge(1 + text.size()));
  return PercentFormatter(runtime, text, args).Run();
}

Result<Value> FormatBraces(Runtime& runtime, const Str& text, const CallArgs& args) {
  RETURN_IF_ERROR(runtime.budget().Charge(1 + text.size()));
  return BraceFormatter(runtime, text, args).Run();
}

}  // namespace kvasir::jinja
