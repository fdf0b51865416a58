// Row-wise and element-wise operations over a vector type; see kernel_set.h for the contract. The order of every sum
// depends on the row's length only.
#pragma once

#include "kernels/cpu/vec_math.h"
#include "kernels/kernel_set.h"

namespace kvasir::simd {

/// Calls fn(offset, n) for every vector of [0, size), with n = kLanes but for the last.
template <class V, class Fn>
inline void ForVectors(int64_t size, const Fn& fn) {
  int64_t i = 0;
  for (; i + V::kLanes <= size; i += V::kLanes) fn(i, V::kLanes);
  if (i < size) fn(i, static_cast<int>(size - i));
}

template <class V>
inline typename V::F LoadUpTo(const float* p, int n, typename V::F fill) {
  return n == V::kLanes ? V::Load(p) : V::LoadN(p, n, fill);
}

template <class V>
inline void StoreUpTo(float* p, typename V::F v, int n) {
  if (n == V::kLanes) {
    V::Store(p, v);
  } else {
    V::StoreN(p, v, n);
  }
}

template <class V>
inline float SumLanes(typename V::F v) {
  alignas(64) float lanes[V::kLanes];
  V::Store(lanes, v);
  for (int half = V::kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

/// Σ term(x), x = `fill` contributing nothing; 64 partial sums, added pairwise.
template <class V, class Term>
inline float SumOf(const float* x, int64_t n, typename V::F fill, const Term& term) {
  constexpr int kSums = 64 / V::kLanes;
  typename V::F sums[kSums];
  for (int s = 0; s < kSums; ++s) sums[s] = V::Zero();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int s = 0; s < kSums; ++s) sums[s] = term(V::Load(x + i + s * V::kLanes), sums[s]);
  }
  for (int s = 0; i < n; ++s, i += V::kLanes) {
    const int count = n - i < V::kLanes ? static_cast<int>(n - i) : V::kLanes;
    sums[s] = term(LoadUpTo<V>(x + i, count, fill), sums[s]);
  }
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int s = 0; s < half; ++s) sums[s] = V::Add(sums[s], sums[s + half]);
  }
  return SumLanes<V>(sums[0]);
}

template <class V>
void NormalizeRow(const float* x, int64_t n, const NormArgs& args, float* y) noexcept {
  using F = typename V::F;
  if (n <= 0) return;
  const float count = static_cast<float>(n);
  F mean = V::Zero();
  if (args.layer_norm) {
    const float sum = SumOf<V>(x, n, V::Zero(), [](F v, F acc) { return V::Add(acc, v); });
    mean = V::Set1(sum / count);
  }
  const float squares = SumOf<V>(x, n, mean, [mean](F v, F acc) {
    const F centred = V::Sub(v, mean);
    return V::Fma(centred, centred, acc);
  });
  const F inverse = V::Div(V::Set1(1.0f), V::Sqrt(V::Set1(squares / count + args.eps)));
  const F plus = V::Set1(args.plus_one ? 1.0f : 0.0f);
  ForVectors<V>(n, [&](int64_t i, int lanes) {
    F v = V::Mul(V::Sub(LoadUpTo<V>(x + i, lanes, mean), mean), inverse);
    if (args.weight != nullptr) v = V::Mul(v, V::Add(LoadUpTo<V>(args.weight + i, lanes, plus), plus));
    if (args.bias != nullptr) v = V::Add(v, LoadUpTo<V>(args.bias + i, lanes, plus));
    StoreUpTo<V>(y + i, v, lanes);
  });
}

/// (a, b) turned by an angle.
template <class V>
inline void Turn(typename V::F c, typename V::F s, typename V::F* a, typename V::F* b) {
  const typename V::F old = *a;
  *a = V::Sub(V::Mul(old, c), V::Mul(*b, s));
  *b = V::Add(V::Mul(*b, c), V::Mul(old, s));
}

template <class V>
void RotateToken(float* x, int64_t heads, int64_t head_dim, const float* cos_sin, int64_t n_freq,
                 bool interleaved) noexcept {
  using F = typename V::F;
  for (int64_t h = 0; h < heads; ++h) {
    float* head = x + h * head_dim;
    ForVectors<V>(n_freq, [&](int64_t i, int lanes) {
      const F c = LoadUpTo<V>(cos_sin + i, lanes, V::Zero());
      const F s = LoadUpTo<V>(cos_sin + n_freq + i, lanes, V::Zero());
      F a;
      F b;
      if (!interleaved) {
        a = LoadUpTo<V>(head + i, lanes, V::Zero());
        b = LoadUpTo<V>(head + n_freq + i, lanes, V::Zero());
        Turn<V>(c, s, &a, &b);
        StoreUpTo<V>(head + i, a, lanes);
        StoreUpTo<V>(head + n_freq + i, b, lanes);
        return;
      }
      float* pairs = head + 2 * i;
      const int first = 2 * lanes < V::kLanes ? 2 * lanes : V::kLanes;
      const int second = 2 * lanes - first;
      F low = LoadUpTo<V>(pairs, first, V::Zero());
      F high = second > 0 ? LoadUpTo<V>(pairs + V::kLanes, second, V::Zero()) : V::Zero();
      V::Deinterleave(low, high, &a, &b);
      Turn<V>(c, s, &a, &b);
      V::Interleave(a, b, &low, &high);
      StoreUpTo<V>(pairs, low, first);
      if (second > 0) StoreUpTo<V>(pairs + V::kLanes, high, second);
    });
  }
}

template <class V>
void AddScaled(const float* x, int64_t n, float scale, float* y) noexcept {
  const typename V::F factor = V::Set1(scale);
  ForVectors<V>(n, [&](int64_t i, int lanes) {
    const typename V::F term = V::Mul(LoadUpTo<V>(x + i, lanes, V::Zero()), factor);
    StoreUpTo<V>(y + i, V::Add(LoadUpTo<V>(y + i, lanes, V::Zero()), term), lanes);
  });
}

/// x[i] = fn(x[i]).
template <class V, class Fn>
inline void Map(float* x, int64_t n, const Fn& fn) {
  ForVectors<V>(n, [&](int64_t i, int lanes) { StoreUpTo<V>(x + i, fn(LoadUpTo<V>(x + i, lanes, V::Zero())), lanes); });
}

template <class V>
void ActivateAll(float* x, int64_t n, Activation activation) noexcept {
  WithActivation(activation, [&]<Activation kActivation>() {
    Map<V>(x, n, [](typename V::F v) { return Activate<V, kActivation>(v); });
  });
}

template <class V>
void ClampAll(float* x, int64_t n, float limit) noexcept {
  Map<V>(x, n,
         [high = V::Set1(limit), low = V::Set1(-limit)](typename V::F v) { return V::Min(high, V::Max(low, v)); });
}

template <class V>
void SoftcapAll(float* x, int64_t n, float cap) noexcept {
  Map<V>(x, n, [c = V::Set1(cap)](typename V::F v) { return V::Mul(c, Tanh<V>(V::Div(v, c))); });
}

template <class V>
void ScaleAll(float* x, int64_t n, float factor) noexcept {
  Map<V>(x, n, [f = V::Set1(factor)](typename V::F v) { return V::Mul(v, f); });
}

template <class V>
constexpr RowKernels MakeRowKernels() {
  return {.normalize = &NormalizeRow<V>,
          .rotate = &RotateToken<V>,
          .add = &AddScaled<V>,
          .activate = &ActivateAll<V>,
          .clamp = &ClampAll<V>,
          .softcap = &SoftcapAll<V>,
          .scale = &ScaleAll<V>};
}

}  // namespace kvasir::simd
