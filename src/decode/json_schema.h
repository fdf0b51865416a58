// JSON Schema as a grammar: what an answer may be.
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "decode/json_grammar.h"
#include "io/json.h"

namespace kvasir {

/// Compiles a schema (JSON Schema 2020-12, also drafts 6 and 7 where they say the same). Every text of the grammar
/// satisfies it; of the texts that do, it has those that are written plainly:
/// - properties in the order of the schema, each of the required ones, further ones last; members and items with no
///   space or one, or a line feed and up to 32 spaces or 16 tabs, before a bracket closes and behind ",", ":" and an
///   opening one. Objects that name properties have no others unless additionalProperties allows it.
/// - numbers of up to 18 digits before and 17 behind the point; with bounds they have no exponent. Strings in any
///   spelling that RFC 8259 allows, but for "pattern", "format", "enum", "const" and names, which have one.
/// - 64 levels.
///
/// Understood: type (also lists), enum, const, properties, required, additionalProperties, items, prefixItems,
/// minItems, maxItems, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (integers up to 4096), pattern
/// and format (decode/json_pattern.h), minLength, maxLength, anyOf, allOf of one schema, $ref inside the document,
/// $defs and definitions, true and {}. Titles, descriptions, defaults and examples say nothing. Where no type is given,
/// keywords that are for one type alone imply it.
///
/// InvalidArgument, with the place as a JSON pointer: any other keyword that would restrict a text, what contradicts
/// itself, more than 5000 properties or values of enums, names of more than 1024 bytes, and whatever takes too much
/// work or memory. Takes bounded time and memory for any schema. Thread-safe.
Result<std::shared_ptr<const JsonGrammar>> CompileJsonSchema(const json::value& schema);

inline constexpr size_t kMostJsonSchemaBytes = 1u << 20;

/// The same from a text of at most kMostJsonSchemaBytes; `what` begins messages.
Result<std::shared_ptr<const JsonGrammar>> CompileJsonSchemaText(std::string_view text, std::string_view what);

/// Any JSON object.
std::shared_ptr<const JsonGrammar> JsonObjectGrammar();

}  // namespace kvasir
