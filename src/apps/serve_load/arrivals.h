// When requests arrive.
#pragma once

#include <cstdint>
#include <limits>

#include "decode/random.h"

namespace kvasir::apps {

/// A standard normal number, by the polar method of Marsaglia & Bray (1964).
double NormalNumber(Random& random);

/// A number of the gamma distribution with this shape and scale 1: mean and variance are `shape`. Marsaglia & Tsang
/// 2000, "A simple method for generating gamma variables". REQUIRES: shape > 0, finite.
double GammaNumber(Random& random, double shape);

/// Intervals of a gamma distribution with mean 1 / rate: with a burstiness of 1 those of a Poisson process, below 1
/// requests come in clusters, above 1 more evenly; the intervals' variance is 1 / (burstiness * rate²). The same seed
/// gives the same times.
class Arrivals {
 public:
  static constexpr double kAllAtOnce = std::numeric_limits<double>::infinity();

  /// REQUIRES: rate (requests per second, or kAllAtOnce) and burstiness are above 0.
  Arrivals(double rate, double burstiness, uint64_t seed);

  /// When the next request comes, in seconds; the first one comes at 0.
  double Next();

 private:
  Random random_;
  double rate_;
  double burstiness_;
  double next_ = 0;
};

}  // namespace kvasir::apps
