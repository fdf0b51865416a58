#include "text/jinja_print.h"

#include <array>
#include <charconv>
#include <cmath>

#include "text/jinja_text.h"
#include "text/jinja_unicode.h"

namespace kvasir::jinja {
namespace {

// A character that repr writes as an escape.
std::string ReprEscape(char32_t c) {
  switch (c) {
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    case '\\': return "\\\\";
    default: break;
  }
  if (c <= 0xFF) return fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
  if (c <= 0xFFFF) return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  return fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
}

void ReprStr(const Str& text, StrBuilder& out) {
  const std::string_view view = text.view();
  const bool single = view.find('\'') != std::string_view::npos, dual = view.find('"') != std::string_view::npos;
  const char quote = single && !dual ? '"' : '\'';
  TaintCursor taint(text);
  if (text.markup()) out.Append("Markup(");
  out.Append(std::string_view(&quote, 1));
  ForEachChar(view, [&](char32_t c, size_t offset) {
    const bool tainted = taint.At(offset);
    if (c == static_cast<char32_t>(quote)) {
      out.Append(quote == '"' ? "\\\"" : "\\'", tainted);
    } else if (c == '\\' || !IsPrintable(c)) {
      out.Append(ReprEscape(c), tainted);
    } else {
      out.AppendCodePoint(c, tainted);
    }
  });
  out.Append(std::string_view(&quote, 1));
  if (text.markup()) out.Append(")");
}

std::pair<std::string_view, std::string_view> Brackets(const Sequence& sequence) {
  switch (sequence.kind) {
    case SequenceKind::kTuple: return {"(", sequence.items.size() == 1 ? ",)" : ")"};
    case SequenceKind::kKeys: return {"dict_keys([", "])"};
    case SequenceKind::kValues: return {"dict_values([", "])"};
    case SequenceKind::kItems: return {"dict_items([", "])"};
    default: return {"[", "]"};
  }
}

Status ReprSequence(Budget& budget, const Sequence& sequence, StrBuilder& out) {
  if (sequence.IsGenerator()) {
    return Unsupported("a generator cannot be printed (Python would print a memory address); use the filter list");
  }
  if (sequence.kind == SequenceKind::kRange) {
    out.Append(sequence.label);
    return out.status();
  }
  const auto [open, close] = Brackets(sequence);
  out.Append(open);
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) out.Append(", ");
    RETURN_IF_ERROR(ReprTo(budget, sequence.items[i], out));
  }
  out.Append(close);
  return out.status();
}

Status ReprDict(Budget& budget, const Dict& dict, StrBuilder& out) {
  out.Append("{");
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!std::exchange(first, false)) out.Append(", ");
    RETURN_IF_ERROR(ReprTo(budget, key, out));
    out.Append(": ");
    RETURN_IF_ERROR(ReprTo(budget, value, out));
  }
  out.Append("}");
  return out.status();
}

}  // namespace

std::string PrintDouble(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 32> buffer;
  const auto scientific =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  std::string text(buffer.data(), scientific.ptr);  // d.ddde±xx, shortest digits
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t digits = e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(text.data() + digits, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return text;
  std::array<char, 64> fixed;
  const auto end = std::to_chars(fixed.data(), fixed.data() + fixed.size(), value, std::chars_format::fixed);
  std::string out(fixed.data(), end.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

Status ReprTo(Budget& budget, const Value& value, StrBuilder& out) {
  RETURN_IF_ERROR(budget.Charge(1));
  if (value.str()) {
    ReprStr(*value.str(), out);
    return out.status();
  }
  if (value.is_undefined()) {
    out.Append("Undefined");
    return out.status();
  }
  return PrintTo(budget, value, out);
}

Status PrintTo(Budget& budget, const Value& value, StrBuilder& out) {
  if (const Str* s = value.str()) {
    out.Append(*s);
  } else if (value.is_none()) {
    out.Append("None");
  } else if (const bool* b = value.boolean()) {
    out.Append(*b ? "True" : "False");
  } else if (const int64_t* i = value.integer()) {
    out.Append(fmt::format("{}", *i));
  } else if (const double* d = value.real()) {
    out.Append(PrintDouble(*d));
  } else if (const Sequence* sequence = value.sequence()) {
    return ReprSequence(budget, *sequence, out);
  } else if (const Dict* dict = value.dict()) {
    return ReprDict(budget, *dict, out);
  } else if (const Object* object = value.object()) {
    ASSIGN_OR_RETURN(const std::string text, object->Print());
    out.Append(text);
  }
  return out.status();
}

Result<Str> ToStr(Budget& budget, const Value& value) {
  if (value.str()) return *value.str();
  StrBuilder out(budget);
  RETURN_IF_ERROR(PrintTo(budget, value, out));
  return std::move(out).Finish();
}

}  // namespace kvasir::jinja
