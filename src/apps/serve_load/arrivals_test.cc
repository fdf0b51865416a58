#include "apps/serve_load/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace kvasir::apps {
namespace {

struct Moments {
  double mean = 0;
  double variance = 0;
  double share_below_mean = 0;
};

Moments MomentsOfIntervals(double rate, double burstiness, uint64_t seed) {
  constexpr int kCount = 200000;
  Arrivals arrivals(rate, burstiness, seed);
  double last = arrivals.Next();
  EXPECT_EQ(last, 0);
  Moments moments;
  double squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const double next = arrivals.Next();
    EXPECT_GE(next, last);
    const double interval = (next - last) * rate;
    last = next;
    moments.mean += interval / kCount;
    squares += interval * interval / kCount;
    if (interval < 1) moments.share_below_mean += 1.0 / kCount;
  }
  moments.variance = squares - moments.mean * moments.mean;
  return moments;
}

TEST(Arrivals, IntervalsHaveTheMeanAndVarianceOfTheirDistribution) {
  for (const double burstiness : {0.25, 0.5, 1.0, 2.0, 10.0}) {
    for (const uint64_t seed : {1u, 2u}) {
      // In units of the mean interval the variance is 1 / burstiness. The bounds are six standard errors and more.
      const Moments moments = MomentsOfIntervals(40, burstiness, seed);
      EXPECT_NEAR(moments.mean, 1, 6 / std::sqrt(200000 * burstiness)) << burstiness;
      EXPECT_NEAR(moments.variance * burstiness, 1, 0.08) << burstiness;
    }
  }
}

TEST(Arrivals, APoissonProcessHasExponentialIntervals) {
  EXPECT_NEAR(MomentsOfIntervals(3, 1, 7).share_below_mean, 1 - std::exp(-1), 0.007);
}

TEST(Arrivals, TheSeedDecides) {
  const auto times = [](uint64_t seed) {
    Arrivals arrivals(10, 0.7, seed);
    std::vector<double> result(100);
    std::ranges::generate(result, [&] { return arrivals.Next(); });
    return result;
  };
  EXPECT_EQ(times(5), times(5));
  EXPECT_NE(times(5), times(6));
}

TEST(Arrivals, AllAtOnce) {
  Arrivals arrivals(Arrivals::kAllAtOnce, 1, 3);
  EXPECT_EQ(arrivals.Next(), 0);
  EXPECT_EQ(arrivals.Next(), 0);
}

}  // namespace
}  // namespace kvasir::apps
