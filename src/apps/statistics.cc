#include "apps/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvasir::apps {

double QuantileOfSorted(std::span<const double> values, double share) {
  if (values.empty()) return 0;
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(at);
  const double above = values[std::min(below + 1, values.size() - 1)];
  return std::lerp(values[below], above, at - static_cast<double>(below));
}

double Quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  return QuantileOfSorted(values, share);
}

double Median(std::vector<double> values) { return Quantile(std::move(values), 0.5); }

double MeanOf(std::span<const double> values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

MedianInterval IntervalOfMedian(std::vector<double> values) {
  std::ranges::sort(values);
  const auto n = static_cast<double>(values.size());
  // Each value is below the true median with probability 1/2: how many are is binomial. Logarithms, since 2^n is soon
  // beyond a double.
  const auto probability = [&](double k) {
    return std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) - n * std::log(2.0));
  };
  size_t k = 0;
  double tail = probability(0);
  while (static_cast<double>(k + 1) < n / 2) {
    const double wider_tail = tail + probability(static_cast<double>(k + 1));
    if (1 - 2 * wider_tail < 0.95) break;
    tail = wider_tail;
    ++k;
  }
  return {.low = values[k],
          .median = QuantileOfSorted(values, 0.5),
          .high = values[values.size() - 1 - k],
          .coverage = std::max(0.0, 1 - 2 * tail)};
}

}  // namespace kvasir::apps
