#include "text/jinja_sort.h"

#include <algorithm>
#include <numeric>

namespace kvasir::jinja {

// A bottom-up merge sort: unlike std::stable_sort it can stop at the first comparison that fails.
Result<std::vector<size_t>> SortOrder(Budget& budget, const std::vector<Value>& keys, bool reverse) {
  const size_t n = keys.size();
  std::vector<size_t> order(n), merged(n);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t width = 1; width < n; width *= 2) {
    for (size_t begin = 0; begin < n; begin += 2 * width) {
      const size_t middle = std::min(begin + width, n), end = std::min(begin + 2 * width, n);
      size_t left = begin, right = middle;
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          // Descending order keeps equal keys in their order too, so the roles are swapped, not the result.
          const Value& a = keys[order[reverse ? left : right]];
          const Value& b = keys[order[reverse ? right : left]];
          ASSIGN_OR_RETURN(take_right, Less(budget, a, b));
        }
        merged[out] = take_right ? order[right++] : order[left++];
      }
    }
    order.swap(merged);
  }
  return order;
}

}  // namespace kvasir::jinja
