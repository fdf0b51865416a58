// The vocabulary of JSON Schema: keywords, types and the values that stand in schemas.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/status.h"
#include "io/json.h"

namespace kvasir {

/// Bits of sets of types. An integer is a number too.
enum JsonType : uint32_t {
  kJsonNull = 1,
  kJsonBoolean = 2,
  kJsonInteger = 4,
  kJsonNumber = 8,
  kJsonString = 16,
  kJsonArray = 32,
  kJsonObject = 64,
};
inline constexpr uint32_t kAnyJsonType = ~uint32_t{0};

inline std::string_view JsonView(json::string_view text) { return {text.data(), text.size()}; }

/// The types that a value has.
uint32_t JsonTypesOf(const json::value& value);

/// Appends a value in the way in which values of enums are written: without spaces.
void WriteJsonPlainly(const json::value& value, std::string& out);

/// The types that a schema names; without any, all that its keywords are for, else kAnyJsonType.
Result<uint32_t> ReadJsonTypes(const json::object& schema);

/// Whether only annotations stand beside these keywords, of which the first names them in the error.
Status CheckNothingElse(const json::object& schema, std::initializer_list<std::string_view> keywords);

/// Whether every keyword is an annotation, "type", or one for some types.
Status CheckJsonKeywords(const json::object& schema);

struct JsonCounts {
  int64_t least;
  int64_t most;  // -1: any number
};
/// Bounds on a number of things: each is absent or a whole number from 0 on.
Result<JsonCounts> ReadJsonCounts(const json::object& schema, std::string_view least_key, std::string_view most_key);

}  // namespace kvasir
