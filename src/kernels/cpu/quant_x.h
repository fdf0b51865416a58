// Activations for the products of block formats: rounded to eight bits, but for outliers. Included by quant_impl.h.
#pragma once

#include "kernels/cpu/vec_math.h"
#include "kernels/quant_layout.h"

namespace kvasir::simd {

/// The activations of one token and chunk that are not rounded, ascending in k.
struct Outliers {
  int32_t count;
  float zero;  // of the layout
  float x[kMaxOutliers];
  uint8_t k[kMaxOutliers];  // in the chunk
};
inline constexpr int kOutlierBytes = sizeof(Outliers);
static_assert(kActivationChunk <= 256);

/// Activations of kActivationChunk inputs and a strip of T tokens, zeros beyond the last: [64][T] dwords of four int8;
/// [blocks][T] int32 that sums begin with; with minima [blocks][T] fp32 sums of the int8; [T] fp32 scales; [T]
/// Outliers.
template <int kBlockK, bool kMinima>
struct QuantX {
  static constexpr int kBlocks = kActivationChunk / kBlockK;
  static constexpr int kSeedsAt = kActivationChunk;
  static constexpr int kSumsAt = kSeedsAt + 4 * kBlocks;
  static constexpr int kScalesAt = kSumsAt + (kMinima ? 4 * kBlocks : 0);
  static constexpr int kOutliersAt = kScalesAt + 4;
  static constexpr int kBytes = kOutliersAt + kOutlierBytes;  // per token
};

/// Moves values of x [n] greater than `limit` in magnitude to `outliers`, the largest first while there is room.
inline void TakeOutliers(float* x, int n, float limit, Outliers* outliers) {
  while (outliers->count < kMaxOutliers) {
    int best = -1;
    float largest = limit;
    for (int i = 0; i < n; ++i) {
      const float size = x[i] < 0.0f ? -x[i] : x[i];
      if (size > largest) {
        largest = size;
        best = i;
      }
    }
    if (best < 0) return;
    int at = outliers->count++;
    for (; at > 0 && outliers->k[at - 1] > best; --at) {
      outliers->k[at] = outliers->k[at - 1];
      outliers->x[at] = outliers->x[at - 1];
    }
    outliers->k[at] = static_cast<uint8_t>(best);
    outliers->x[at] = x[best];
    x[best] = 0.0f;
  }
}

/// The largest magnitude of x [kActivationChunk].
template <class V>
inline float LargestMagnitude(const float* x) {
  typename V::F max = V::Zero();
  for (int i = 0; i < kActivationChunk; i += V::kLanes) max = V::Max(max, V::Abs(V::Load(x + i)));
  return V::HorizontalMax(max);
}

/// How many of x [kActivationChunk] are greater than `limit` in magnitude.
template <class V>
inline int CountBeyond(const float* x, float limit) {
  int count = 0;
  for (int i = 0; i < kActivationChunk; i += V::kLanes) {
    count += V::CountGreater(V::Abs(V::Load(x + i)), V::Set1(limit));
  }
  return count;
}

/// One token's chunk of n <= kActivationChunk inputs as int8, zeros behind them; returns the scale.
template <class V, bool kThreshold>
inline float QuantizeChunk(const float* x, int n, int8_t* q, Outliers* outliers) {
  using F = typename V::F;
  constexpr float kTiny = 1e-30f;  // its inverse is finite
  alignas(64) float kept[kActivationChunk];
  F bad = V::Zero();  // stays zero unless x holds NaN or infinity, which then reach the scale and all outputs
  F max = V::Zero();
  for (int i = 0; i < kActivationChunk; i += V::kLanes) {
    const F v = n - i >= V::kLanes ? V::Load(x + i) : n > i ? V::LoadN(x + i, n - i, V::Zero()) : V::Zero();
    V::Store(kept + i, v);
    bad = V::Fma(v, V::Zero(), bad);
    max = V::Max(max, V::Abs(v));
  }
  const float spoiled = V::HorizontalSum(bad);
  float largest = V::HorizontalMax(max);
  outliers->count = 0;
  while (largest > kTiny && spoiled == 0.0f) {
    const float limit = largest / kOutlierGap;
    if (CountBeyond<V>(kept, limit) > kMaxOutliers - outliers->count) break;
    TakeOutliers(kept, n, limit, outliers);
    largest = LargestMagnitude<V>(kept);
  }
  if (kThreshold && largest > kInt8Threshold && spoiled == 0.0f) {
    TakeOutliers(kept, n, kInt8Threshold, outliers);
    largest = LargestMagnitude<V>(kept);
  }

  const F inverse = V::Set1(largest > kTiny ? 127.0f / largest : 0.0f);
  for (int i = 0; i < kActivationChunk; i += V::kLanes) V::NarrowI8(V::Mul(V::Load(kept + i), inverse), q + i);
  return (largest > kTiny ? largest / 127.0f : 0.0f) + spoiled;
}

template <class V, QuantLayout L, int kZero>
void PackQuantX(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  using X = QuantX<L.block_k, L.minima>;
  alignas(64) int8_t q[kMaxStrip][kActivationChunk];
  for (int64_t k = 0; k < cols; k += kActivationChunk, out += X::kBytes * tokens) {
    const int n = cols - k < kActivationChunk ? static_cast<int>(cols - k) : kActivationChunk;
    auto* const scales = reinterpret_cast<float*>(out + X::kScalesAt * tokens);
    auto* const outliers = reinterpret_cast<Outliers*>(out + X::kOutliersAt * tokens);
    for (int t = 0; t < tokens; ++t) {
      scales[t] = QuantizeChunk<V, L.threshold()>(x + t * stride + k, n, q[t], outliers + t);
      outliers[t].zero = static_cast<float>(L.zero);
    }
    auto* const values = reinterpret_cast<uint32_t*>(out);
    auto* const seeds = reinterpret_cast<int32_t*>(out + X::kSeedsAt * tokens);
    auto* const sums = reinterpret_cast<float*>(out + X::kSumsAt * tokens);
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 8
      for (int d = 0; d < kActivationChunk / 4; ++d) __builtin_memcpy(&values[d * tokens + t], q[t] + d * 4, 4);
      for (int b = 0; b < X::kBlocks; ++b) {
        int32_t sum = 0;
        for (int i = 0; i < L.block_k; ++i) sum += q[t][b * L.block_k + i];
        seeds[b * tokens + t] = -kZero * sum;
        if constexpr (L.minima) sums[b * tokens + t] = static_cast<float>(sum);
      }
    }
  }
}

}  // namespace kvasir::simd
