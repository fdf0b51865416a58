#include "apps/statistics.h"

#include <gtest/gtest.h>

#include <numeric>

namespace kvasir::apps {
namespace {

TEST(Quantile, LiesBetweenNeighbours) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({7}, 0.25), 7);
  EXPECT_DOUBLE_EQ(Quantile({4, 1, 2, 3, 5}, 0.25), 2);
  EXPECT_DOUBLE_EQ(Quantile({4, 1, 2, 3}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(Quantile({10, 20}, 0.75), 17.5);
  EXPECT_DOUBLE_EQ(Quantile({10, 20}, 1), 20);
}

std::vector<double> OneTo(size_t n) {
  std::vector<double> values(n);
  std::iota(values.rbegin(), values.rend(), 1.0);
  return values;
}

TEST(IntervalOfMedian, IsThatOfTheBinomialDistribution) {
  // By the table for the sign test; coverages by hand: 1 - 2 * (sum of n over i, i <= k) / 2^n.
  const struct {
    size_t n;
    double low, high, coverage;
  } cases[] = {{1, 1, 1, 0.0},       {2, 1, 2, 0.5},        {5, 1, 5, 0.9375},
               {6, 1, 6, 0.96875},   {8, 1, 8, 0.9921875},  {9, 2, 8, 0.9609375},
               {10, 2, 9, 0.978516}, {20, 6, 15, 0.958611}, {30, 10, 21, 0.957226}};
  for (const auto& c : cases) {
    const MedianInterval interval = IntervalOfMedian(OneTo(c.n));
    EXPECT_EQ(interval.low, c.low) << c.n;
    EXPECT_EQ(interval.high, c.high) << c.n;
    EXPECT_NEAR(interval.coverage, c.coverage, 1e-6) << c.n;
    EXPECT_DOUBLE_EQ(interval.median, static_cast<double>(c.n + 1) / 2);
  }
  // Where 2^n is no double any more.
  const MedianInterval interval = IntervalOfMedian(OneTo(5000));
  EXPECT_GE(interval.coverage, 0.95);
  EXPECT_LT(interval.coverage, 0.953);
  EXPECT_NEAR(interval.low, 2431, 2);
  EXPECT_NEAR(interval.high, 2570, 2);
}

}  // namespace
}  // namespace kvasir::apps
