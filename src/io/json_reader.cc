#include <cmath>

#include "io/json.h"
#include "io/json_kind.h"

namespace kvasir {

std::string_view JsonKindName(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null: return "null";
    case json::kind::bool_: return "a boolean";
    case json::kind::int64:
    case json::kind::uint64: return "an integer";
    case json::kind::double_: return "a number";
    case json::kind::string: return "a string";
    case json::kind::array: return "an array";
    case json::kind::object: return "an object";
  }
  return "unknown";
}

namespace {

/// A member that is there and not null, with the spelling of its key for messages.
struct Member {
  std::string_view key;
  const json::value* value = nullptr;
};

Member FindMember(const json::object& object, JsonReader::Names names) {
  for (std::string_view name : names) {
    const json::value* value = object.if_contains(json::string_view(name.data(), name.size()));
    if (value != nullptr && !value->is_null()) return {name, value};
  }
  return {};
}

Status Missing(const std::string& what, JsonReader::Names names) {
  std::string all;
  for (std::string_view name : names) all += fmt::format("{}\"{}\"", all.empty() ? "" : " or ", name);
  return InvalidData("{}: {} is missing", what, all);
}

Status WrongKind(const std::string& what, std::string_view key, std::string_view wanted, const json::value& value) {
  return InvalidData("{}: \"{}\" must be {}, it is {}", what, key, wanted, JsonKindName(value));
}

/// `place` stands for the value in messages, e.g. `"layers"[3]`.
Result<int64_t> ToInt(const json::value& value, int64_t min, int64_t max, const std::string& what,
                      std::string_view place) {
  int64_t number = 0;
  if (const int64_t* i = value.if_int64()) {
    number = *i;
  } else if (const uint64_t* u = value.if_uint64()) {
    if (*u > static_cast<uint64_t>(INT64_MAX)) {
      return InvalidData("{}: {} is {}, it must be from {} to {}", what, place, *u, min, max);
    }
    number = static_cast<int64_t>(*u);
  } else if (const double* d = value.if_double()) {
    // 2^63 itself does not fit; both bounds are exact doubles.
    if (std::trunc(*d) != *d || *d < -0x1p63 || *d >= 0x1p63) {
      return InvalidData("{}: {} is {}, it must be an integer from {} to {}", what, place, *d, min, max);
    }
    number = static_cast<int64_t>(*d);
  } else {
    return InvalidData("{}: {} must be an integer, it is {}", what, place, JsonKindName(value));
  }
  if (number < min || number > max) {
    return InvalidData("{}: {} is {}, it must be from {} to {}", what, place, number, min, max);
  }
  return number;
}

}  // namespace

const json::value* JsonReader::Find(Names names) const { return FindMember(*object_, names).value; }

Result<int64_t> JsonReader::Int(Names names, int64_t min, int64_t max, std::optional<int64_t> fallback) const {
  const auto [key, value] = FindMember(*object_, names);
  if (value != nullptr) return ToInt(*value, min, max, what_, fmt::format("\"{}\"", key));
  if (fallback) return *fallback;
  return Missing(what_, names);
}

Result<double> JsonReader::Number(Names names, std::optional<double> fallback) const {
  const auto [key, value] = FindMember(*object_, names);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Missing(what_, names);
  }
  if (!value->is_number()) return WrongKind(what_, key, "a number", *value);
  if (const int64_t* i = value->if_int64()) return static_cast<double>(*i);
  if (const uint64_t* u = value->if_uint64()) return static_cast<double>(*u);
  const double number = value->get_double();
  if (!std::isfinite(number)) return InvalidData("{}: \"{}\" must be finite", what_, key);
  return number;
}

Result<bool> JsonReader::Bool(Names names, std::optional<bool> fallback) const {
  const auto [key, value] = FindMember(*object_, names);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Missing(what_, names);
  }
  if (!value->is_bool()) return WrongKind(what_, key, "true or false", *value);
  return value->get_bool();
}

Result<std::string> JsonReader::String(Names names, std::optional<std::string> fallback) const {
  const auto [key, value] = FindMember(*object_, names);
  if (value == nullptr) {
    if (fallback) return *std::move(fallback);
    return Missing(what_, names);
  }
  if (!value->is_string()) return WrongKind(what_, key, "a string", *value);
  const json::string& text = value->get_string();
  return std::string(text.data(), text.size());
}

Result<std::vector<int64_t>> JsonReader::IntList(Names names, int64_t min, int64_t max) const {
  std::vector<int64_t> list;
  const auto [key, value] = FindMember(*object_, names);
  if (value == nullptr) return list;
  const json::array* array = value->if_array();
  if (array == nullptr) {
    ASSIGN_OR_RETURN(const int64_t only, ToInt(*value, min, max, what_, fmt::format("\"{}\"", key)));
    list.push_back(only);
    return list;
  }
  list.reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    ASSIGN_OR_RETURN(const int64_t number, ToInt((*array)[i], min, max, what_, fmt::format("\"{}\"[{}]", key, i)));
    list.push_back(number);
  }
  return list;
}

Result<const json::object*> JsonReader::Object(Names names) const {
  const auto [key, value] = FindMember(*object_, names);
  if (value == nullptr) return static_cast<const json::object*>(nullptr);
  if (!value->is_object()) return WrongKind(what_, key, "an object", *value);
  return &value->get_object();
}

}  // namespace kvasir
