// Loops that measure a core's limits, over a vector type; see kernel_set.h for the contract.
#pragma once

#include "kernels/kernel_set.h"

namespace kvasir::simd {

/// The largest of the dwords of kStreams equal parts, read side by side, fetched `kAhead` bytes ahead into the
/// second-level cache and `kNear` into the first.
template <class V, int kStreams, int kAhead, int kNear = 0>
inline uint64_t ReadStreams(const std::byte* data, int64_t bytes) {
  using F = typename V::F;
  constexpr int kPerLine = 16 / V::kLanes;
  const int64_t part = bytes / kStreams / 64 * 64;
  F sums[kStreams][kPerLine];
  for (int s = 0; s < kStreams; ++s) {
    for (int i = 0; i < kPerLine; ++i) sums[s][i] = V::Zero();
  }
  for (int64_t offset = 0; offset < part; offset += 64) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const std::byte* line = data + s * part + offset;
      if constexpr (kNear > 0) V::PrefetchL1(line + kNear);
      if constexpr (kAhead > 0) V::PrefetchL2(line + kAhead);
#pragma GCC unroll 4
      for (int i = 0; i < kPerLine; ++i) {
        sums[s][i] = V::Max(sums[s][i], V::AsF(V::LoadU(line + i * V::kLanes * 4)));
      }
    }
  }
  F all = V::Zero();
  for (int s = 0; s < kStreams; ++s) {
    for (int i = 0; i < kPerLine; ++i) all = V::Max(all, sums[s][i]);
  }
  uint32_t lanes[V::kLanes];
  V::StoreU(lanes, V::AsU(all));
  uint64_t checksum = 0;
  for (int i = 0; i < V::kLanes; ++i) checksum += lanes[i];
  return checksum;
}

inline constexpr int kReadPatterns = 8;

template <class V>
uint64_t Read(const std::byte* data, int64_t bytes, int pattern) noexcept {
  switch (pattern) {
    case 0: return ReadStreams<V, 1, 0>(data, bytes);
    case 1: return ReadStreams<V, 1, 4096>(data, bytes);
    case 2: return ReadStreams<V, 2, 0>(data, bytes);
    case 3: return ReadStreams<V, 2, 2048>(data, bytes);
    case 4: return ReadStreams<V, 4, 0>(data, bytes);
    case 5: return ReadStreams<V, 4, 2048>(data, bytes);
    case 6: return ReadStreams<V, 1, 10240, 4096>(data, bytes);
    default: return ReadStreams<V, 2, 10240, 4096>(data, bytes);
  }
}

/// kChains chains of `op`, the i-th from start(i): different, or the compiler would compute one for all.
template <class V, int kChains, class Start, class Op>
inline void RunChains(int64_t rounds, float* sink, const Start& start, const Op& op) {
  typename V::F acc[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) acc[i] = start(i);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = op(acc[i]);
  }
  typename V::F total = V::Zero();
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) total = V::Add(total, acc[i]);
  float lanes[V::kLanes];
  V::Store(lanes, total);
  *sink = lanes[0];
}

template <class V, int kChains>
int64_t Fp32Peak(int64_t rounds, float* sink) noexcept {
  const typename V::F a = V::Set1(*sink);
  const typename V::F b = V::Set1(0.5f);
  const float seed = *sink;
  RunChains<V, kChains>(
      rounds, sink, [seed](int i) { return V::Set1(seed + static_cast<float>(i)); },
      [a, b](typename V::F acc) { return V::Fma(acc, b, a); });
  return rounds * kChains * V::kLanes * 2;
}

}  // namespace kvasir::simd
