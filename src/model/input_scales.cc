#include "model/input_scales.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace kvasir {

void AddColumnSizes(std::span<const float> row, std::span<float> sizes) {
  float largest = 0.0f;
  for (const float x : row) largest = std::abs(x) > largest ? std::abs(x) : largest;
  if (!(largest > 0.0f) || !std::isfinite(largest)) return;
  const float inverse = 1.0f / largest;
  for (size_t k = 0; k < row.size(); ++k) {
    const float size = std::abs(row[k]) * inverse;
    sizes[k] = size > sizes[k] ? size : sizes[k];
  }
}

void InputScalesOf(std::span<float> columns) {
  constexpr int kMostBits = 60;
  std::vector<float> sizes;
  std::copy_if(columns.begin(), columns.end(), std::back_inserter(sizes),
               [](float size) { return size > 0.0f && std::isfinite(size); });
  if (sizes.empty()) {
    std::fill(columns.begin(), columns.end(), 1.0f);
    return;
  }
  const auto middle = sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2);
  std::nth_element(sizes.begin(), middle, sizes.end());
  for (float& column : columns) {
    const float ratio = column / *middle;
    const bool usual = !(column > 0.0f) || !std::isfinite(ratio) || (ratio * kColumnGap >= 1.0f && ratio <= kColumnGap);
    int exponent = 0;
    if (!usual && std::frexp(ratio, &exponent) == 0.5f) --exponent;
    column = std::ldexp(1.0f, std::clamp(exponent, -kMostBits, kMostBits));
  }
}

}  // namespace kvasir
