#include "model/input_scales.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace kvasir {

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
    column = usual ? 1.0f : std::ldexp(1.0f, std::clamp(std::ilogb(ratio), -kMostBits, kMostBits));
  }
}

}  // namespace kvasir
