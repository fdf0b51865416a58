// Products of eight-bit floats: widened through fp16 to fp32, times their block's scale. Every output is one chain of
// FMAs over its inputs, of weights that are rounded once (scale · value). Included by quant_impl.h.
#pragma once

#include <utility>

#include "kernels/cpu/matmul_impl.h"
#include "kernels/kernel_set.h"
#include "kernels/quant_layout.h"

namespace kvasir::simd {

/// The weights of a record's four inputs of group g (of kRecordK / 4) as fp32, V::kLanes rows; scale is less by the
/// difference of the exponents' biases.
template <class V, QuantLayout L>
[[gnu::always_inline]] inline void LoadFloat8(const std::byte* record, int g, int part, typename V::F scale,
                                              typename V::F (&w)[4]) {
  using U = typename V::U;
  const U bytes = V::LoadU(record + L.unit_at(0) + g * 64 + part * V::kLanes * 4);
  const auto widen = [](U high_bytes) {  // bytes as the upper halves of fp16
    if constexpr (L.table == CodeTable::kE5M2) return V::SplitF16(high_bytes);
    const U sign = V::And(high_bytes, V::SetDwords(static_cast<int>(0x80008000u)));
    const U rest = V::And(V::template ShiftRight<1>(high_bytes), V::SetDwords(0x3f803f80));
    return V::SplitF16(V::Or(sign, rest));
  };
  const U mask = V::SetDwords(static_cast<int>(0xff00ff00u));
  const U even = widen(V::And(V::template ShiftLeft<8>(bytes), mask));
  const U odd = widen(V::And(bytes, mask));
  w[0] = V::Mul(V::EvenF16(even), scale);
  w[1] = V::Mul(V::EvenF16(odd), scale);
  w[2] = V::Mul(V::OddF16(even), scale);
  w[3] = V::Mul(V::OddF16(odd), scale);
}

template <class V, QuantLayout L>
[[gnu::always_inline]] inline typename V::F Float8Scale(const std::byte* record, int part) {
  constexpr float kBias = L.table == CodeTable::kE4M3 ? 256.0f : 1.0f;
  const auto* const scales = reinterpret_cast<const float*>(record + L.scales_at());
  return V::Mul(V::Load(scales + part * V::kLanes), V::Set1(kBias));
}

template <class V, QuantLayout L, int kTokens>
void Float8Tile(const MatMulTile& tile) noexcept {
  using F = typename V::F;
  constexpr int kParts = kRows / V::kLanes;
  F acc[kTokens][kParts];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      acc[t][part] = tile.resume ? V::Load(tile.acc + t * kRows + part * V::kLanes) : V::Zero();
    }
  }
  const std::byte* x = tile.x;
  const std::byte* w = tile.w;
  for (int64_t line = 0; line < tile.lines; ++line, w += L.record_bytes()) {
    F scales[kParts];
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) scales[part] = Float8Scale<V, L>(w, part);
    for (int g = 0; g < L.record_k / 4; ++g, x += kTokens * 16) {
      FetchLine<V>(tile, w + g * 64);
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) {
        F weights[4];
        LoadFloat8<V, L>(w, g, part, scales[part], weights);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 12
          for (int t = 0; t < kTokens; ++t) {
            const F value = V::Set1(*reinterpret_cast<const float*>(x + (i * kTokens + t) * 4));
            acc[t][part] = V::Fma(weights[i], value, acc[t][part]);
          }
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) V::Store(tile.acc + t * kRows + part * V::kLanes, acc[t][part]);
  }
}

/// Records as lines of fp32 weights.
template <class V, QuantLayout L>
void WidenFloat8(const std::byte* w, int64_t lines, int64_t ahead, std::byte* out) noexcept {
  using F = typename V::F;
  for (int64_t line = 0; line < lines; ++line, w += L.record_bytes(), out += L.record_k * 64) {
    for (int part = 0; part < kRows / V::kLanes; ++part) {
      const F scale = Float8Scale<V, L>(w, part);
      for (int g = 0; g < L.record_k / 4; ++g) {
        if (part == 0) V::PrefetchL2(w + ahead + g * 64);
        F weights[4];
        LoadFloat8<V, L>(w, g, part, scale, weights);
        for (int i = 0; i < 4; ++i) {
          V::Store(reinterpret_cast<float*>(out + (g * 4 + i) * 64) + part * V::kLanes, weights[i]);
        }
      }
    }
  }
}

/// x as for fp32 weights, zeros to whole records.
template <class V, QuantLayout L>
void PackFloat8X(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  const int64_t whole = cols / L.record_k * L.record_k;
  PackX<V, F32Format<V>>(x, stride, tokens, cols, out);
  auto* const values = reinterpret_cast<float*>(out);
  if (whole == cols) return;
  for (int64_t i = cols * tokens; i < (whole + L.record_k) * tokens; ++i) values[i] = 0.0f;
}

template <class V, QuantLayout L, int kStrip>
constexpr FormatKernels MakeFloat8Kernels() {
  FormatKernels kernels;
  kernels.strip = kStrip;
  kernels.x_chunk_bytes = L.record_k * 4;
  kernels.pack_x = &PackFloat8X<V, L>;
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels.tile[0][kT] = &Float8Tile<V, L, kT + 1>), ...);
  }(std::make_integer_sequence<int, kStrip>());
  kernels.widen = &WidenFloat8<V, L>;
  kernels.wide = &V::kFloatKernels;
  kernels.wide_lines = L.record_k;
  kernels.wide_line_bytes = 64;
  kernels.widen_from = kStrip + 1;
  kernels.ahead = kernels.ahead_few = 4096;
  return kernels;
}

}  // namespace kvasir::simd
