// The grids that GPTQ's groups are rounded to.
#pragma once

#include <cstdint>

#include "quant/gptq.h"

namespace kvasir {

/// scale · (code - zero), code from 0 to `top`.
struct GptqGrid {
  float scale = 1.0f;  // an fp16 number
  int zero = 1;        // 1 … top
  int top = 15;

  /// Ties to even, as torch.round. REQUIRES: x is finite.
  int Code(float x) const {
    const auto low = static_cast<float>(-zero);
    const auto high = static_cast<float>(top - zero);
    const float y = x / scale;
    const float kept = y < low ? low : y > high ? high : y;
    constexpr float kMagic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
    return static_cast<int>(kept + kMagic - kMagic) + zero;
  }
  float Value(int code) const { return scale * static_cast<float>(code - zero); }
};

/// The grid for w[0 … count): from the extremes (0 included), or the best of 80 shrunk ones. Zeros get scale 1.
/// The scale is kept within fp16's positive numbers.
GptqGrid FindGptqGrid(const float* w, int64_t count, const GptqOptions& options) noexcept;

/// Whether a grid for magnitudes up to this has a scale in fp16's range.
bool GptqGridFits(float magnitude, int bits);

}  // namespace kvasir
