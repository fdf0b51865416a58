// How caches of plain elements multiply: the formats that attention_impl.h's products are made of.
//
// A line is a vector of 4-byte units of a tile; w points to kWords floats that multiply it: a dimension of a query
// (with K) or the weight of a slot (with V), or two of them. A sum is kSums vectors, which Total makes one.
#pragma once

#include <cstddef>

namespace kvasir::simd {

template <class V>
struct KvF32 {
  static constexpr int kGroup = 1;  // dimensions in a line of K, slots in a line of V
  static constexpr int kWords = 1;
  static constexpr int kSums = 1;
  using F = typename V::F;
  using Line = F;
  static Line Load(const std::byte* p) { return V::AsF(V::LoadU(p)); }
  static Line LoadN(const std::byte* p, int n) { return V::AsF(V::LoadUN(p, n)); }
  [[gnu::always_inline]] static void Add(F (&sum)[1], Line line, const float* w) {
    sum[0] = V::Fma(V::Set1(w[0]), line, sum[0]);
  }
  static void StoreWeights(float* out, F p) { V::Store(out, p); }
};

/// Two elements a unit, widened to the even and the odd ones.
template <class V>
struct KvF16 {
  static constexpr int kGroup = 2;
  static constexpr int kWords = 2;
  static constexpr int kSums = 1;
  using F = typename V::F;
  struct Line {
    F even, odd;
  };
  static Line Widen(typename V::U raw) {
    const typename V::U split = V::SplitF16(raw);
    return {V::EvenF16(split), V::OddF16(split)};
  }
  static Line Load(const std::byte* p) { return Widen(V::LoadU(p)); }
  static Line LoadN(const std::byte* p, int n) { return Widen(V::LoadUN(p, n)); }
  [[gnu::always_inline]] static void Add(F (&sum)[1], const Line& line, const float* w) {
    sum[0] = V::Fma(V::Set1(w[1]), line.odd, V::Fma(V::Set1(w[0]), line.even, sum[0]));
  }
  static void StoreWeights(float* out, F p) { V::Store(out, p); }
};

/// f16 where registers are many: widened in the order of memory, which needs no shuffling. Even and odd elements are
/// summed side by side, units in the lower half of a vector in one and those of the upper half in the other.
/// V::SetPair(w): w[0] and w[1] in turns.
template <class V>
struct KvF16Pairs {
  static constexpr int kGroup = 2;
  static constexpr int kWords = 2;
  static constexpr int kSums = 2;
  using F = typename V::F;
  struct Line {
    F low, high;
  };
  static Line Load(const std::byte* p) { return {V::WidenF16(p), V::WidenF16(p + V::kLanes * 2)}; }
  static Line LoadN(const std::byte* p, int n) {
    const typename V::U raw = V::LoadUN(p, n);
    return {V::EvenF16(raw), V::OddF16(raw)};  // the lower and the upper half
  }
  [[gnu::always_inline]] static void Add(F (&sum)[2], const Line& line, const float* w) {
    const F pair = V::SetPair(w);
    sum[0] = V::Fma(pair, line.low, sum[0]);
    sum[1] = V::Fma(pair, line.high, sum[1]);
  }
  static F Total(F low, F high) {
    F even, odd;
    V::Deinterleave(low, high, &even, &odd);
    return V::Add(even, odd);
  }
  static void StoreWeights(float* out, F p) { V::Store(out, p); }
};

/// bf16 without an instruction for it: products in fp32, with queries rounded as the instruction wants them.
template <class V>
struct KvBf16 {
  static constexpr bool kRoundsQueries = true;
  static constexpr int kGroup = 2;
  static constexpr int kWords = 2;
  static constexpr int kSums = 1;
  using F = typename V::F;
  using Line = typename KvF16<V>::Line;
  static Line Widen(typename V::U raw) { return {V::EvenBf16(raw), V::OddBf16(raw)}; }
  static Line Load(const std::byte* p) { return Widen(V::LoadU(p)); }
  static Line LoadN(const std::byte* p, int n) { return Widen(V::LoadUN(p, n)); }
  [[gnu::always_inline]] static void Add(F (&sum)[1], const Line& line, const float* w) { KvF16<V>::Add(sum, line, w); }
  static void StoreWeights(float* out, F p) { V::Store(out, p); }
};

/// Whether a format keeps codes with scales: KvCodes has its own packing, scores and sums.
template <typename Format>
concept CodeFormat = requires { Format::kCodes; };

/// 4-byte units of weights per slot pair or slot, as StoreWeights lays them: floats per tile of scores.
template <typename Format>
constexpr int kTileWords = 16 / Format::kGroup * Format::kWords;

}  // namespace kvasir::simd
