// The typed getters of GgufFile.
#include <cmath>

#include "io/gguf.h"
#include "io/gguf_parse.h"

namespace kvasir {
namespace {

std::string_view ArrayKind(const GgufArray& array) {
  switch (array.index()) {
    case 0:
    case 1: return "an array of integers";
    case 2: return "an array of floats";
    case 3: return "an array of truth values";
    default: return "an array of strings";
  }
}

std::string_view Kind(const GgufValue& value) {
  switch (value.index()) {
    case 0:
    case 1: return "an integer";
    case 2: return "a float";
    case 3: return "a truth value";
    case 4: return "a string";
    default: return ArrayKind(std::get<GgufArray>(value));
  }
}

Status Missing(const std::string& what, std::string_view key) {
  return InvalidData("{}: the metadata lacks \"{}\"", what, key);
}

Status WrongKind(const std::string& what, std::string_view key, std::string_view wanted, const GgufValue& value) {
  return InvalidData("{}: \"{}\" must be {}, it is {}", what, key, wanted, Kind(value));
}

/// Appends one integer within the bounds. `Element` is int64_t, uint64_t or bool.
template <typename Element>
Status AppendInteger(Element element, int64_t min, int64_t max, const std::string& what, std::string_view key,
                     std::vector<int64_t>* list) {
  bool fits = true;
  if constexpr (std::is_same_v<Element, uint64_t>) fits = element <= static_cast<uint64_t>(INT64_MAX);
  const int64_t number = static_cast<int64_t>(element);
  if (!fits || number < min || number > max) {
    return InvalidData("{}: \"{}\" holds {}, it must be from {} to {}", what, key, element, min, max);
  }
  list->push_back(number);
  return OkStatus();
}

}  // namespace

Result<int64_t> GgufFile::Int(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Missing(description(), key);
  }
  std::vector<int64_t> one;
  if (const int64_t* i = std::get_if<int64_t>(value)) {
    RETURN_IF_ERROR(AppendInteger(*i, min, max, description(), key, &one));
  } else if (const uint64_t* u = std::get_if<uint64_t>(value)) {
    RETURN_IF_ERROR(AppendInteger(*u, min, max, description(), key, &one));
  } else {
    return WrongKind(description(), key, "an integer", *value);
  }
  return one[0];
}

Result<double> GgufFile::Number(std::string_view key, std::optional<double> fallback) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Missing(description(), key);
  }
  if (const int64_t* i = std::get_if<int64_t>(value)) return static_cast<double>(*i);
  if (const uint64_t* u = std::get_if<uint64_t>(value)) return static_cast<double>(*u);
  const double* number = std::get_if<double>(value);
  if (number == nullptr) return WrongKind(description(), key, "a number", *value);
  if (!std::isfinite(*number)) return InvalidData("{}: \"{}\" is {}, it must be finite", description(), key, *number);
  return *number;
}

Result<bool> GgufFile::Bool(std::string_view key, std::optional<bool> fallback) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Missing(description(), key);
  }
  if (const bool* truth = std::get_if<bool>(value)) return *truth;
  return WrongKind(description(), key, "a truth value", *value);
}

Result<std::string> GgufFile::String(std::string_view key, std::optional<std::string> fallback) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) {
    if (fallback) return *std::move(fallback);
    return Missing(description(), key);
  }
  if (const std::string* text = std::get_if<std::string>(value)) return *text;
  return WrongKind(description(), key, "a string", *value);
}

Result<std::vector<int64_t>> GgufFile::IntList(std::string_view key, int64_t min, int64_t max) const {
  std::vector<int64_t> list;
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return list;
  const GgufArray* array = std::get_if<GgufArray>(value);
  if (array == nullptr) {
    ASSIGN_OR_RETURN(const int64_t only, Int(key, min, max));
    list.push_back(only);
    return list;
  }
  Status status = std::visit(
      [&](const auto& elements) -> Status {
        using Element = typename std::decay_t<decltype(elements)>::value_type;
        if constexpr (std::is_integral_v<Element>) {
          list.reserve(elements.size());
          for (const Element element : elements) {
            RETURN_IF_ERROR(AppendInteger(element, min, max, description(), key, &list));
          }
          return OkStatus();
        } else {
          return WrongKind(description(), key, "an array of integers", *value);
        }
      },
      *array);
  RETURN_IF_ERROR(status);
  return list;
}

Result<const std::vector<std::string>*> GgufFile::StringList(std::string_view key) const {
  const GgufValue* value = FindValue(key);
  const std::vector<std::string>* list = nullptr;
  if (value == nullptr) return list;
  if (const GgufArray* array = std::get_if<GgufArray>(value)) list = std::get_if<std::vector<std::string>>(array);
  if (list == nullptr) return WrongKind(description(), key, "an array of strings", *value);
  return list;
}

Result<const std::vector<double>*> GgufFile::NumberList(std::string_view key) const {
  const GgufValue* value = FindValue(key);
  const std::vector<double>* list = nullptr;
  if (value == nullptr) return list;
  if (const GgufArray* array = std::get_if<GgufArray>(value)) list = std::get_if<std::vector<double>>(array);
  if (list == nullptr) return WrongKind(description(), key, "an array of floats", *value);
  for (size_t i = 0; i < list->size(); ++i) {
    if (!std::isfinite((*list)[i])) {
      return InvalidData("{}: \"{}\"[{}] is {}, it must be finite", description(), key, i, (*list)[i]);
    }
  }
  return list;
}

}  // namespace kvasir
