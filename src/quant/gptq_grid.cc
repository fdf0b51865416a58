#include "quant/gptq_grid.h"

#include <algorithm>
#include <cmath>

#include "base/dtype.h"

namespace kvasir {
namespace {

constexpr float kSmallestScale = 0x1p-24f;
constexpr float kLargestScale = 65504.0f;

float StoredScale(float scale) {
  return std::clamp(ToFloat(ToFloat16(std::min(scale, kLargestScale))), kSmallestScale, kLargestScale);
}

/// The grid that covers low … high. REQUIRES: low <= 0 <= high, not both 0.
GptqGrid Covering(float low, float high, bool symmetric, int top) {
  GptqGrid grid{.top = top};
  const auto steps = static_cast<float>(top);
  if (symmetric) {
    grid.scale = StoredScale(2.0f * std::max(-low, high) / steps);
    grid.zero = (top + 1) / 2;
    return grid;
  }
  grid.scale = StoredScale((high - low) / steps);
  const float zero = std::nearbyint(-low / grid.scale);
  if (zero < 1.0f) {
    // Code 0 must stay below zero, so that the others have to cover what is above.
    grid.scale = StoredScale(high / (steps - 1.0f));
    grid.zero = 1;
    return grid;
  }
  grid.zero = static_cast<int>(std::min(zero, steps));
  return grid;
}

double Loss(const GptqGrid& grid, const float* w, int64_t count) {
  constexpr double kNorm = 2.4;
  double loss = 0;
  for (int64_t i = 0; i < count; ++i) loss += std::pow(std::abs(w[i] - grid.Value(grid.Code(w[i]))), kNorm);
  return loss;
}

}  // namespace

GptqGrid FindGptqGrid(const float* w, int64_t count, const GptqOptions& options) noexcept {
  float low = 0.0f;
  float high = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, w[i]);
    high = std::max(high, w[i]);
  }
  const int top = (1 << options.bits) - 1;
  if (low == 0.0f && high == 0.0f) return {.scale = 1.0f, .zero = (top + 1) / 2, .top = top};
  GptqGrid best = Covering(low, high, options.symmetric, top);
  if (!options.search_grid) return best;
  double least = Loss(best, w, count);
  for (int shrunk = 99; shrunk > 20; --shrunk) {
    const float factor = static_cast<float>(shrunk) / 100.0f;
    const GptqGrid grid = Covering(low * factor, high * factor, options.symmetric, top);
    const double loss = Loss(grid, w, count);
    if (loss < least) {
      least = loss;
      best = grid;
    }
  }
  return best;
}

bool GptqGridFits(float magnitude, int bits) {
  // The widest grid spans twice the magnitude.
  return 2.0f * magnitude / static_cast<float>((1 << bits) - 1) <= kLargestScale;
}

}  // namespace kvasir
