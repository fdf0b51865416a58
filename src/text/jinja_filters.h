// The tables of filters, split by what they work on.
#pragma once

#include <string_view>
#include <unordered_map>

#include "text/jinja_runtime.h"

namespace kvasir::jinja {

using FilterTable = std::unordered_map<std::string_view, FilterFn>;

/// Filters of strings and numbers.
const FilterTable& ScalarFilters();
/// Filters of lists and dicts.
const FilterTable& SequenceFilters();

/// What the parameter `attribute` of many filters means: "a.b" or an index; null: the value itself. `fallback`, where
/// given, replaces what is undefined on the way.
Result<Value> AttributeOf(Runtime& runtime, const Value& value, const Value* attribute,
                          const Value* fallback = nullptr);
/// Strings in lower case, for comparisons that ignore it; other values as they are.
Result<Value> IgnoreCase(Runtime& runtime, Value value);

}  // namespace kvasir::jinja
