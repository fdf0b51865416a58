#include <algorithm>
#include <cmath>

#include "text/jinja_print.h"
#include "text/jinja_sort.h"
#include "text/jinja_text.h"

namespace kvasir::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style), out_(budget) {}

  Result<Str> Write(const Value& value) {
    RETURN_IF_ERROR(WriteValue(value, 0));
    return std::move(out_).Finish();
  }

 private:
  Status WriteValue(const Value& value, int level) {
    RETURN_IF_ERROR(budget_.Charge(1));
    if (const Str* s = value.str()) {
      WriteString(*s);
      return out_.status();
    }
    if (const Dict* dict = value.dict()) return WriteDict(*dict, level);
    const Sequence* list = value.sequence();
    if (list && (list->kind == SequenceKind::kList || list->kind == SequenceKind::kTuple)) {
      return WriteList(*list, level);
    }
    if (!value.is_none() && !value.IsNumber()) {
      return InvalidData("an object of type '{}' is not JSON serializable{}", value.TypeName(),
                         value.is_undefined() ? " (" + value.undefined_message() + ")" : "");
    }
    out_.Append(ScalarText(value));
    return out_.status();
  }

  static std::string ScalarText(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* b = value.boolean()) return *b ? "true" : "false";
    if (const int64_t* i = value.integer()) return fmt::format("{}", *i);
    const double d = *value.real();
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return PrintDouble(d);
  }

  // The escape of a character, empty where it stands for itself.
  std::string Escape(char32_t c) const {
    static constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    const size_t index = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (index != std::string_view::npos) return {'\\', kLetters[index]};
    if (c >= 0x20 && (c < 0x7F || !style_.ensure_ascii)) return {};
    if (c <= 0xFFFF) return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
    return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
  }

  void WriteString(const Str& text) {
    out_.Append("\"");
    TaintCursor taint(text);
    const std::string_view view = text.view();
    size_t plain = 0;  // begin of the characters that go out as they are
    for (size_t i = 0; i < view.size();) {
      const auto byte = static_cast<unsigned char>(view[i]);
      if (byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\') {
        ++i;
        continue;
      }
      const Utf8Unit unit = DecodeUtf8(view, i);
      if (const std::string escape = Escape(unit.code_point); !escape.empty()) {
        out_.AppendSlice(text, plain, i);
        out_.Append(escape, taint.At(i));
        plain = i + unit.length;
      }
      i += unit.length;
    }
    out_.AppendSlice(text, plain, view.size());
    out_.Append("\"");
  }

  void NewLine(int level) {
    out_.Append("\n");
    for (int i = 0; i < level; ++i) out_.Append(style_.indent);
  }

  Status WriteList(const Sequence& list, int level) {
    out_.Append("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator);
      if (style_.indented) NewLine(level + 1);
      RETURN_IF_ERROR(WriteValue(list.items[i], level + 1));
    }
    if (style_.indented && !list.items.empty()) NewLine(level);
    out_.Append("]");
    return out_.status();
  }

  Status WriteDict(const Dict& dict, int level) {
    std::vector<Value> keys;
    for (const auto& [key, value] : dict.entries()) keys.push_back(key);
    std::vector<size_t> order(keys.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (style_.sort_keys) {
      ASSIGN_OR_RETURN(order, SortOrder(budget_, keys, false));
    }
    out_.Append("{");
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator);
      if (style_.indented) NewLine(level + 1);
      const auto& [key, value] = dict.entries()[order[i]];
      WriteString(key.str() ? *key.str() : Str::Trusted(ScalarText(key)));
      out_.Append(style_.key_separator);
      RETURN_IF_ERROR(WriteValue(value, level + 1));
    }
    if (style_.indented && !dict.entries().empty()) NewLine(level);
    out_.Append("}");
    return out_.status();
  }

  Budget& budget_;
  const JsonStyle& style_;
  StrBuilder out_;
};

}  // namespace

Result<Str> ToJson(Budget& budget, const Value& value, const JsonStyle& style) {
  return JsonWriter(budget, style).Write(value);
}

}  // namespace kvasir::jinja
