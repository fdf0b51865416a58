#include "apps/serve_load/arrivals.h"

#include <cmath>

namespace kvasir::apps {
namespace {

constexpr uint64_t kStream = 0xa441;  // of the seed: apart from what draws lengths and tokens

}  // namespace

double NormalNumber(Random& random) {
  while (true) {
    const double x = 2 * random.Uniform() - 1;
    const double y = 2 * random.Uniform() - 1;
    const double square = x * x + y * y;
    if (square > 0 && square < 1) return x * std::sqrt(-2 * std::log(square) / square);
  }
}

double GammaNumber(Random& random, double shape) {
  // A shape below 1 is one above, times a power of a uniform number (the authors' section 6).
  if (shape < 1) {
    const double larger = GammaNumber(random, shape + 1);
    return larger * std::pow(1 - random.Uniform(), 1 / shape);
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = NormalNumber(random);
    const double cube_root = 1 + c * x;
    if (cube_root <= 0) continue;
    const double v = cube_root * cube_root * cube_root;
    const double u = 1 - random.Uniform();  // above 0
    if (std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

Arrivals::Arrivals(double rate, double burstiness, uint64_t seed)
    : random_(seed, kStream), rate_(rate), burstiness_(burstiness) {}

double Arrivals::Next() {
  if (std::isinf(rate_)) return 0;
  const double now = next_;
  next_ += GammaNumber(random_, burstiness_) / (burstiness_ * rate_);
  return now;
}

}  // namespace kvasir::apps
