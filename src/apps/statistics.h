// Figures of samples.
#pragma once

#include <span>
#include <vector>

namespace kvasir::apps {

double Median(std::vector<double> values);
/// The value that a share of the others, 0 to 1, is not above, interpolated; 0 for none.
double Quantile(std::vector<double> values, double share);
/// The same of values in ascending order.
double QuantileOfSorted(std::span<const double> values, double share);
/// 0 for none.
double MeanOf(std::span<const double> values);

/// Order statistics between which the true median lies.
struct MedianInterval {
  double low = 0;
  double median = 0;  // of the values
  double high = 0;
  double coverage = 0;  // the probability, whatever the values' distribution
};
/// The narrowest such interval with a coverage of at least 95 %; with fewer than six values all of them, with what
/// coverage that has (as bench/compare). REQUIRES: values are not empty.
MedianInterval IntervalOfMedian(std::vector<double> values);

}  // namespace kvasir::apps
