// Matrix products over a vector type: the tile, the packing of x and the epilogue. Included by the files that
// instantiate them for an instruction set; see kernel_set.h for the contract.
#pragma once

#include <utility>

#include "kernels/cpu/vec_math.h"
#include "kernels/kernel_set.h"

namespace kvasir::simd {

inline constexpr int kRows = 16;  // of a panel; kPanelRows as an int

// A weight format over a vector type V says how a line of weights becomes operands:
//   kSteps: operands per line (each a step of k); kFloatsPerX: floats in one dword of packed x;
//   Load(line, step, part): V::kLanes rows of a line; Broadcast(x): one dword of x for all lanes;
//   MultiplyAdd(w, x, acc); PackX(p, n): n <= kLanes·kFloatsPerX floats as kLanes dwords, zeros behind them.

/// fp32 weights.
template <class V>
struct F32Format {
  using F = typename V::F;
  static constexpr int kSteps = 1;
  static constexpr int kFloatsPerX = 1;
  static F Load(const std::byte* line, int, int part) { return V::AsF(V::LoadU(line + part * V::kLanes * 4)); }
  static F Broadcast(const std::byte* x) { return V::Set1(*reinterpret_cast<const float*>(x)); }
  static F MultiplyAdd(F w, F x, F acc) { return V::Fma(w, x, acc); }
  static typename V::U PackX(const float* p, int n) { return V::AsU(V::LoadN(p, n, V::Zero())); }
};

/// fp16 weights, widened.
template <class V>
struct F16Format : F32Format<V> {
  using F = typename V::F;
  static constexpr int kSteps = 2;
  static F Load(const std::byte* line, int step, int part) {
    const typename V::U split = V::SplitF16(V::LoadU(line + part * V::kLanes * 4));
    return step == 0 ? V::EvenF16(split) : V::OddF16(split);
  }
};

/// bf16 weights, widened, times x rounded to bf16.
template <class V>
struct BF16Format : F32Format<V> {
  using F = typename V::F;
  static constexpr int kSteps = 2;
  static F Load(const std::byte* line, int step, int part) {
    const typename V::U pairs = V::LoadU(line + part * V::kLanes * 4);
    return step == 0 ? V::EvenBf16(pairs) : V::OddBf16(pairs);
  }
  static typename V::U PackX(const float* p, int n) { return V::RoundBf16(V::LoadN(p, n, V::Zero())); }
};

template <class V, class Format>
void PackX(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  constexpr int kFloats = V::kLanes * Format::kFloatsPerX;  // per token and round
  const int64_t dwords = (cols + kWeightColAlign - 1) / kWeightColAlign * kWeightColAlign / Format::kFloatsPerX;
  for (int64_t d = 0; d < dwords; d += V::kLanes) {
    const int64_t k = d * Format::kFloatsPerX;
    const int n = cols - k < kFloats ? static_cast<int>(cols - k < 0 ? 0 : cols - k) : kFloats;
    const int steps = dwords - d < V::kLanes ? static_cast<int>(dwords - d) : V::kLanes;
    for (int t = 0; t < tokens; t += V::kLanes) {
      const int count = tokens - t < V::kLanes ? tokens - t : V::kLanes;
      std::byte* to = out + (d * tokens + t) * 4;
      if (tokens == 1) {
        V::StoreUN(to, Format::PackX(x + k, n), steps);
        continue;
      }
      typename V::U block[V::kLanes];
      for (int i = 0; i < V::kLanes; ++i) {
        block[i] = Format::PackX(x + (i < count ? t + i : t) * stride + k, n);
      }
      V::Transpose(block);
      for (int i = 0; i < steps; ++i) V::StoreUN(to + int64_t{i} * tokens * 4, block[i], count);
    }
  }
}

/// Asks for what comes after a line of weights. Always inline: a function that only prefetches has no effect in GCC's
/// eyes, and calls of it are dropped.
template <class V>
[[gnu::always_inline]] inline void FetchLine(const MatMulTile& tile, const std::byte* line) {
  if (tile.near > 0) V::PrefetchL1(line + tile.near);
  V::PrefetchL2(line + tile.ahead);
}

/// kPanels panels × kTokens tokens, all sums in registers.
template <class V, class Format, int kPanels, int kTokens>
void Tile(const MatMulTile& tile) noexcept {
  using F = typename V::F;
  constexpr int kParts = kRows / V::kLanes;
  F acc[kTokens][kPanels][kParts];
#pragma GCC unroll 48
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) {
        acc[t][p][part] = tile.resume ? V::Load(tile.acc + (p * kTokens + t) * kRows + part * V::kLanes) : V::Zero();
      }
    }
  }
  const std::byte* x = tile.x;
  const std::byte* w = tile.w;
  const int64_t panel_bytes = tile.panel_bytes;
  for (int64_t line = 0; line < tile.lines; ++line) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) FetchLine<V>(tile, w + p * panel_bytes);
#pragma GCC unroll 2
    for (int step = 0; step < Format::kSteps; ++step) {
      F weights[kPanels][kParts];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) weights[p][part] = Format::Load(w + p * panel_bytes, step, part);
      }
#pragma GCC unroll 48
      for (int t = 0; t < kTokens; ++t) {
        const F broadcast = Format::Broadcast(x + t * 4);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
          for (int part = 0; part < kParts; ++part) {
            acc[t][p][part] = Format::MultiplyAdd(weights[p][part], broadcast, acc[t][p][part]);
          }
        }
      }
      x += kTokens * 4;
    }
    w += 64;
  }
#pragma GCC unroll 48
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) {
        V::Store(tile.acc + (p * kTokens + t) * kRows + part * V::kLanes, acc[t][p][part]);
      }
    }
  }
}

template <class V, class Format>
void WidenLines(const std::byte* w, int64_t lines, int64_t ahead, std::byte* out) noexcept {
  for (int64_t line = 0; line < lines; ++line, w += 64) {
    V::PrefetchL2(w + ahead);
    for (int step = 0; step < Format::kSteps; ++step, out += 64) {
      for (int part = 0; part < kRows / V::kLanes; ++part) {
        V::Store(reinterpret_cast<float*>(out) + part * V::kLanes, Format::Load(w, step, part));
      }
    }
  }
}

/// The kernels of a plain format: tiles of one panel for up to kStrip tokens, of two for up to kPaired tokens.
template <class V, class Format, int kStrip, int kPaired>
constexpr FormatKernels MakeFormatKernels() {
  FormatKernels kernels;
  kernels.strip = kStrip;
  kernels.x_chunk_bytes = Format::kSteps * 4;
  kernels.pack_x = &PackX<V, Format>;
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels.tile[0][kT] = &Tile<V, Format, 1, kT + 1>), ...);
  }(std::make_integer_sequence<int, kStrip>());
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels.tile[1][kT] = &Tile<V, Format, 2, kT + 1>), ...);
  }(std::make_integer_sequence<int, kPaired>());
  return kernels;
}

/// The same, with `wide` to run on weights widened to fp32.
template <class V, class Format, int kStrip, int kPaired>
constexpr FormatKernels MakeWidenedKernels(const FormatKernels* wide) {
  FormatKernels kernels = MakeFormatKernels<V, Format, kStrip, kPaired>();
  kernels.widen = &WidenLines<V, Format>;
  kernels.wide = wide;
  kernels.wide_lines = Format::kSteps;
  kernels.wide_line_bytes = 64;
  kernels.widen_from = 4 * kStrip + 1;
  return kernels;
}

/// The table of a set from its plain formats and the block formats in their order.
constexpr MatMulKernels MakeMatMulKernels(const FormatKernels* f32, const FormatKernels* f16, const FormatKernels* bf16,
                                          const FormatKernels* quant, void (*finish)(const MatMulFinish&) noexcept) {
  MatMulKernels kernels{.formats = {f32, f16, bf16}, .finish = finish};
  for (int i = 0; i < kQuantFormats; ++i) kernels.formats[kWeightFormats - kQuantFormats + i] = quant + i;
  return kernels;
}

template <class V, Activation kActivation>
void FinishAs(const MatMulFinish& f) {
  using F = typename V::F;
  const F scale = V::Set1(f.scale);
  const int step = f.gated ? 2 : 1;
  for (int p = 0; p < f.panels; p += step) {
    const int64_t first = int64_t{p} / step * kRows;  // output column
    for (int part = 0; part < kRows / V::kLanes; ++part) {
      const int64_t col = first + part * V::kLanes;
      const int64_t left = f.y_cols - col;
      if (left <= 0) break;
      const int n = left < V::kLanes ? static_cast<int>(left) : V::kLanes;
      const auto bias_of = [&](int panel) {
        if (f.bias == nullptr) return V::Zero();
        const int64_t row = int64_t{panel} * kRows + part * V::kLanes;
        const int64_t rows = f.bias_rows - row;
        return rows >= V::kLanes ? V::Load(f.bias + row)
                                 : V::LoadN(f.bias + row, rows > 0 ? static_cast<int>(rows) : 0, V::Zero());
      };
      const F bias = bias_of(p);
      const F up_bias = f.gated ? bias_of(p + 1) : V::Zero();
      for (int t = 0; t < f.tokens; ++t) {
        const float* acc = f.acc + (p * f.tokens + t) * kRows + part * V::kLanes;
        F v = Activate<V, kActivation>(V::Add(V::Load(acc), bias));
        if (f.gated) v = V::Mul(v, V::Add(V::Load(acc + f.tokens * kRows), up_bias));
        v = V::Mul(v, scale);
        float* y = f.y + t * f.y_stride + col;
        if (n == V::kLanes) {
          V::Store(y, f.accumulate ? V::Add(V::Load(y), v) : v);
        } else {
          V::StoreN(y, f.accumulate ? V::Add(V::LoadN(y, n, V::Zero()), v) : v, n);
        }
      }
    }
  }
}

template <class V>
void Finish(const MatMulFinish& f) noexcept {
  WithActivation(f.activation, [&]<Activation kActivation>() { FinishAs<V, kActivation>(f); });
}

}  // namespace kvasir::simd
