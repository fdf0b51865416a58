// For tests: an obviously right validator of the JSON Schemas that grammars are made of, with no automaton in it.
#pragma once

#include <algorithm>
#include <cmath>
#include <regex>
#include <string>
#include <string_view>

#include "base/utf8.h"
#include "decode/json_pattern.h"
#include "decode/json_pointer.h"

namespace kvasir::testing {

class JsonValidator {
 public:
  /// REQUIRES: the document outlives it.
  explicit JsonValidator(const json::value& document) : document_(document) {}

  bool Satisfies(const json::value& value) const { return Satisfies(document_, value); }

 private:
  using Object = json::object;

  bool Satisfies(const json::value& schema, const json::value& value) const {
    if (schema.is_bool()) return schema.get_bool();
    const Object& object = schema.get_object();
    if (const json::value* reference = object.if_contains("$ref")) {
      const auto target = ResolvePointer(document_, Text(*reference));
      return target.ok() && Satisfies(**target, value);
    }
    if (const json::value* list = object.if_contains("anyOf")) {
      return std::ranges::any_of(list->get_array(), [&](const json::value& s) { return Satisfies(s, value); });
    }
    if (const json::value* list = object.if_contains("enum")) {
      return std::ranges::any_of(list->get_array(), [&](const json::value& v) { return Equal(v, value); });
    }
    if (const json::value* constant = object.if_contains("const")) return Equal(*constant, value);
    if (const json::value* type = object.if_contains("type"); type != nullptr && !HasType(*type, value)) return false;
    if (value.is_string()) return StringFits(object, Text(value));
    if (value.is_number()) return NumberFits(object, value);
    if (value.is_array()) return ArrayFits(object, value.get_array());
    return !value.is_object() || ObjectFits(object, value.get_object());
  }

  static std::string_view Text(const json::value& value) {
    return {value.get_string().data(), value.get_string().size()};
  }
  static bool Equal(const json::value& a, const json::value& b) {
    if (a.is_number() && b.is_number()) return a.to_number<double>() == b.to_number<double>();
    return a == b;
  }
  static bool HasType(const json::value& type, const json::value& value) {
    if (type.is_array()) {
      return std::ranges::any_of(type.get_array(), [&](const json::value& one) { return HasType(one, value); });
    }
    const std::string_view name = Text(type);
    if (name == "integer") {
      return value.is_number() && std::floor(value.to_number<double>()) == value.to_number<double>();
    }
    return (name == "null" && value.is_null()) || (name == "boolean" && value.is_bool()) ||
           (name == "number" && value.is_number()) || (name == "string" && value.is_string()) ||
           (name == "array" && value.is_array()) || (name == "object" && value.is_object());
  }
  static double Number(const Object& schema, std::string_view key, double absent) {
    const json::value* value = schema.if_contains(key);
    return value == nullptr ? absent : value->to_number<double>();
  }

  static bool NumberFits(const Object& schema, const json::value& number) {
    const json::value* multiple = schema.if_contains("multipleOf");
    if (multiple != nullptr && (!number.is_int64() || number.get_int64() % multiple->get_int64() != 0)) return false;
    const auto value = number.to_number<double>();
    return value >= Number(schema, "minimum", -INFINITY) && value <= Number(schema, "maximum", INFINITY) &&
           (!schema.contains("exclusiveMinimum") || value > Number(schema, "exclusiveMinimum", 0)) &&
           (!schema.contains("exclusiveMaximum") || value < Number(schema, "exclusiveMaximum", 0));
  }

  static bool StringFits(const Object& schema, std::string_view value) {
    double characters = 0;
    for (size_t i = 0; i < value.size(); i += DecodeUtf8(value, i).length) ++characters;
    if (characters < Number(schema, "minLength", 0) || characters > Number(schema, "maxLength", INFINITY)) return false;
    std::string pattern;
    if (const json::value* own = schema.if_contains("pattern")) pattern = Text(*own);
    if (const json::value* format = schema.if_contains("format")) pattern = JsonFormatPattern(Text(*format));
    return std::regex_search(std::string(value), std::regex(pattern, std::regex::ECMAScript));
  }

  bool ArrayFits(const Object& schema, const json::array& value) const {
    const auto size = static_cast<double>(value.size());
    if (size < Number(schema, "minItems", 0) || size > Number(schema, "maxItems", INFINITY)) return false;
    const json::value* prefix = schema.if_contains("prefixItems");
    const json::value* items = schema.if_contains("items");
    for (size_t i = 0; i < value.size(); ++i) {
      const bool first = prefix != nullptr && i < prefix->get_array().size();
      const json::value* own = first ? &prefix->get_array()[i] : items;
      if (own != nullptr && !Satisfies(*own, value[i])) return false;
    }
    return true;
  }

  bool ObjectFits(const Object& schema, const Object& value) const {
    if (const json::value* required = schema.if_contains("required")) {
      for (const json::value& name : required->get_array()) {
        if (!value.contains(Text(name))) return false;
      }
    }
    const json::value* properties = schema.if_contains("properties");
    const json::value* additional = schema.if_contains("additionalProperties");
    for (const auto& member : value) {
      const json::value* own = properties != nullptr ? properties->get_object().if_contains(member.key()) : nullptr;
      if (own == nullptr) own = additional;
      if (own != nullptr && !Satisfies(*own, member.value())) return false;
    }
    return true;
  }

  const json::value& document_;
};

}  // namespace kvasir::testing
