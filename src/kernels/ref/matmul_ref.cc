// Matrix products in plain code: what every other set is compared with.
#include <algorithm>
#include <type_traits>

#include "base/checked.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"

namespace kvasir::ref {
namespace {

float ToFp32(float x) { return x; }
float ToFp32(BFloat16 x) { return ToFloat(x); }
float ToFp32(Float16 x) { return ToFloat(x); }

// x as the product sees it.
template <class Element>
float RoundX(float x) {
  if constexpr (std::is_same_v<Element, BFloat16>) return ToFloat(ToBFloat16(x));
  return x;
}

/// out: [k][tokens] fp32.
template <class Element>
void PackX(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  float* to = reinterpret_cast<float*>(out);
  for (int64_t k = 0; k < RoundUp(cols, kWeightColAlign); ++k) {
    for (int t = 0; t < tokens; ++t) *to++ = k < cols ? RoundX<Element>(x[t * stride + k]) : 0.0f;
  }
}

template <class Element, int kTokens>
void Tile(const MatMulTile& tile) noexcept {
  constexpr int kPerLine = 4 / static_cast<int>(sizeof(Element));  // k in one line
  const float* x = reinterpret_cast<const float*>(tile.x);
  const Element* w = reinterpret_cast<const Element*>(tile.w);
  if (!tile.resume) std::fill(tile.acc, tile.acc + kTokens * kPanelRows, 0.0f);
  for (int64_t k = 0; k < tile.lines * kPerLine; ++k) {
    for (int t = 0; t < kTokens; ++t) {
      for (int n = 0; n < kPanelRows; ++n) {
        const Element weight = w[k / kPerLine * kPanelRows * kPerLine + n * kPerLine + k % kPerLine];
        tile.acc[t * kPanelRows + n] += ToFp32(weight) * x[k * kTokens + t];
      }
    }
  }
}

template <class Element>
constexpr FormatKernels MakeFormatKernels() noexcept {
  FormatKernels kernels;
  kernels.strip = 4;
  kernels.x_chunk_bytes = 16 / static_cast<int32_t>(sizeof(Element));
  kernels.pack_x = &PackX<Element>;
  kernels.tile[0][0] = &Tile<Element, 1>;
  kernels.tile[0][1] = &Tile<Element, 2>;
  kernels.tile[0][2] = &Tile<Element, 3>;
  kernels.tile[0][3] = &Tile<Element, 4>;
  return kernels;
}

void Finish(const MatMulFinish& f) noexcept {
  const auto value = [&](int panel, int t, int64_t n) {
    const int64_t row = panel * kPanelRows + n;
    const float bias = f.bias != nullptr && row < f.bias_rows ? f.bias[row] : 0.0f;
    return f.acc[(panel * f.tokens + t) * kPanelRows + n] + bias;
  };
  for (int t = 0; t < f.tokens; ++t) {
    for (int64_t col = 0; col < f.y_cols; ++col) {
      const int group = static_cast<int>(col / kPanelRows);
      const int64_t n = col % kPanelRows;
      float v = ApplyActivation(f.activation, value(f.gated ? 2 * group : group, t, n));
      if (f.gated) v *= value(2 * group + 1, t, n);
      v *= f.scale;
      float& y = f.y[t * f.y_stride + col];
      y = f.accumulate ? y + v : v;
    }
  }
}

constexpr FormatKernels kF16 = MakeFormatKernels<Float16>();
constexpr FormatKernels kBF16 = MakeFormatKernels<BFloat16>();

constexpr MatMulKernels MakeTable() noexcept {
  MatMulKernels kernels{.formats = {&kF32Kernels, &kF16, &kBF16}, .finish = &Finish};
  for (int i = 0; i < kQuantFormats; ++i) kernels.formats[kWeightFormats - kQuantFormats + i] = kQuantKernels + i;
  return kernels;
}

}  // namespace

constinit const FormatKernels kF32Kernels = MakeFormatKernels<float>();
constinit const MatMulKernels kMatMulKernels = MakeTable();

}  // namespace kvasir::ref
