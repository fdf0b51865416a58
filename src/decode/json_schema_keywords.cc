#include "decode/json_schema_keywords.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "decode/json_grammar_builder.h"
#include "decode/json_number.h"

namespace kvasir {
namespace {

constexpr int64_t kMostCount = int64_t{1} << 53;

constexpr std::pair<std::string_view, uint32_t> kTypes[] = {
    {"null", kJsonNull},     {"boolean", kJsonBoolean}, {"integer", kJsonInteger}, {"number", kJsonNumber},
    {"string", kJsonString}, {"array", kJsonArray},     {"object", kJsonObject}};

/// Keywords that concern values of some types only; for others they say nothing.
constexpr std::pair<std::string_view, uint32_t> kTypeKeywords[] = {{"properties", kJsonObject},
                                                                   {"required", kJsonObject},
                                                                   {"additionalProperties", kJsonObject},
                                                                   {"items", kJsonArray},
                                                                   {"prefixItems", kJsonArray},
                                                                   {"minItems", kJsonArray},
                                                                   {"maxItems", kJsonArray},
                                                                   {"minLength", kJsonString},
                                                                   {"maxLength", kJsonString},
                                                                   {"pattern", kJsonString},
                                                                   {"format", kJsonString},
                                                                   {"minimum", kJsonInteger | kJsonNumber},
                                                                   {"maximum", kJsonInteger | kJsonNumber},
                                                                   {"exclusiveMinimum", kJsonInteger | kJsonNumber},
                                                                   {"exclusiveMaximum", kJsonInteger | kJsonNumber},
                                                                   {"multipleOf", kJsonInteger | kJsonNumber}};

/// Keywords that restrict nothing.
constexpr std::string_view kAnnotations[] = {"title",    "description", "default",   "examples", "example",
                                             "$schema",  "$id",         "$comment",  "$defs",    "definitions",
                                             "readOnly", "writeOnly",   "deprecated"};

bool IsAnnotation(std::string_view key) {
  return std::ranges::find(kAnnotations, key) != std::end(kAnnotations) || key.starts_with("x-");
}

uint32_t TypesOfKeyword(std::string_view key) {
  const auto found = std::ranges::find(kTypeKeywords, key, &std::pair<std::string_view, uint32_t>::first);
  return found == std::end(kTypeKeywords) ? 0 : found->second;
}

bool IsWhole(const json::value& value) {
  if (value.is_int64() || value.is_uint64()) return true;
  const auto decimal = Decimal::Of(value);
  return decimal.ok() && decimal->fraction.empty();
}

/// A bound on a number of things; -1 when it is absent.
Result<int64_t> ReadCount(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) return -1;
  const auto count = JsonReader(object, "schema").Int({key}, 0, kMostCount);
  if (!count.ok() || value->is_null()) {
    return InvalidArgument("\"{}\" must be a whole number from 0 to {}", key, kMostCount);
  }
  return *count;
}

}  // namespace

uint32_t JsonTypesOf(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null: return kJsonNull;
    case json::kind::bool_: return kJsonBoolean;
    case json::kind::string: return kJsonString;
    case json::kind::array: return kJsonArray;
    case json::kind::object: return kJsonObject;
    default: return IsWhole(value) ? kJsonInteger | kJsonNumber : static_cast<uint32_t>(kJsonNumber);
  }
}

void WriteJsonPlainly(const json::value& value, std::string& out) {
  switch (value.kind()) {
    case json::kind::null: out += "null"; break;
    case json::kind::bool_: out += value.get_bool() ? "true" : "false"; break;
    case json::kind::int64: out += fmt::format("{}", value.get_int64()); break;
    case json::kind::uint64: out += fmt::format("{}", value.get_uint64()); break;
    case json::kind::double_: {
      char buffer[32];
      const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value.get_double());
      out.append(buffer, end.ptr);
      break;
    }
    case json::kind::string: out += '"' + JsonStringInside(JsonView(value.get_string())) + '"'; break;
    case json::kind::array:
      out += '[';
      for (const json::value& item : value.get_array()) {
        if (&item != value.get_array().begin()) out += ',';
        WriteJsonPlainly(item, out);
      }
      out += ']';
      break;
    case json::kind::object:
      out += '{';
      for (const auto& member : value.get_object()) {
        if (&member != value.get_object().begin()) out += ',';
        out += '"' + JsonStringInside(JsonView(member.key())) + "\":";
        WriteJsonPlainly(member.value(), out);
      }
      out += '}';
      break;
  }
}

Result<uint32_t> ReadJsonTypes(const json::object& object) {
  const json::value* type = object.if_contains("type");
  uint32_t types = 0;
  if (type == nullptr) {
    for (const auto& member : object) types |= TypesOfKeyword(JsonView(member.key()));
    return types != 0 ? types : kAnyJsonType;
  }
  const auto add = [&](const json::value& name) -> Status {
    for (const auto& [known, bit] : kTypes) {
      if (!name.is_string() || JsonView(name.get_string()) != known) continue;
      types |= bit;
      return OkStatus();
    }
    return InvalidArgument("\"type\" must be null, boolean, integer, number, string, array, object or a list of them");
  };
  if (!type->is_array()) {
    RETURN_IF_ERROR(add(*type));
    return types;
  }
  for (const json::value& name : type->get_array()) RETURN_IF_ERROR(add(name));
  if (types == 0) return InvalidArgument("\"type\" is an empty list, which nothing satisfies");
  return types;
}

Status CheckNothingElse(const json::object& object, std::initializer_list<std::string_view> allowed) {
  for (const auto& member : object) {
    const std::string_view key = JsonView(member.key());
    if (IsAnnotation(key) || std::ranges::find(allowed, key) != allowed.end()) continue;
    return InvalidArgument("\"{}\" beside \"{}\" is not supported; put it into the schemas themselves", key,
                           *allowed.begin());
  }
  return OkStatus();
}

Status CheckJsonKeywords(const json::object& object) {
  for (const auto& member : object) {
    const std::string_view key = JsonView(member.key());
    if (IsAnnotation(key) || key == "type" || TypesOfKeyword(key) != 0) continue;
    if (key == "uniqueItems" && member.value().is_bool() && !member.value().get_bool()) continue;
    return InvalidArgument("\"{}\" is not supported{}", key, key == "oneOf" ? "; \"anyOf\" is" : "");
  }
  return OkStatus();
}

Result<JsonCounts> ReadJsonCounts(const json::object& object, std::string_view least_key, std::string_view most_key) {
  ASSIGN_OR_RETURN(const int64_t least, ReadCount(object, least_key));
  ASSIGN_OR_RETURN(const int64_t most, ReadCount(object, most_key));
  if (most >= 0 && most < least) {
    return InvalidArgument("\"{}\" {} is less than \"{}\" {}", most_key, most, least_key, least);
  }
  return JsonCounts{std::max<int64_t>(least, 0), most};
}

}  // namespace kvasir
