// Stable sorting of values, where a comparison may fail.
#pragma once

#include <vector>

#include "base/status.h"
#include "text/jinja_value.h"

namespace kvasir::jinja {

/// The order in which sorted(keys, reverse=…) would put the keys: indices into `keys`. Equal keys keep their order.
Result<std::vector<size_t>> SortOrder(Budget& budget, const std::vector<Value>& keys, bool reverse);

}  // namespace kvasir::jinja
