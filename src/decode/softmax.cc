#include "decode/softmax.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace kvasir {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kBlock = 1024;  // 4 KiB of logits: the second look at a block finds it in the first cache level

// The compilers' portable vectors, one SSE2 or NEON register each: the same operations in the same order everywhere,
// and no reliance on an optimiser that may not turn comparisons of floats into SIMD.
using Floats = float __attribute__((vector_size(16)));
using Ints = int32_t __attribute__((vector_size(16)));  // what comparisons give
using Words = uint32_t __attribute__((vector_size(16)));
constexpr size_t kFloats = 4;
constexpr size_t kChains = 4;  // independent ones, to hide the latency of additions

Floats LoadFloats(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

// exp(x) for x <= 0 by 2^k * exp(r), |r| <= ln2/2, without branches or calls. Our own and not std::exp: it is fast,
// and the same on every machine, which libm's variants by processor are not.
// Taylor to degree 7: relative error below 2e-7, nearly all of it fp32 rounding. Below -87 the result is 0.
inline Floats Exp(Floats x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Ints inside = x > -87.0f;
  const Floats shifted = x * 1.44269504f + kMagic;
  const Floats k = shifted - kMagic;
  const Floats r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  Floats p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Words bits = (Words)p + ((Words)shifted << 23);
  return (Floats)(bits & (Words)inside);
}

struct BlockMax {
  float max;
  bool has_nan;
};

BlockMax MaxOf(std::span<const float> x) {
  Floats max[kChains];
  Ints nan[kChains] = {};
  for (Floats& v : max) v = Floats{} - kInfinity;
  size_t i = 0;
  for (; i + kChains * kFloats <= x.size(); i += kChains * kFloats) {
    for (size_t c = 0; c < kChains; ++c) {
      const Floats v = LoadFloats(&x[i + c * kFloats]);
      max[c] = v > max[c] ? v : max[c];
      nan[c] |= v != v;  // NOLINT(misc-redundant-expression): true of NaN alone
    }
  }
  BlockMax result{-kInfinity, false};
  for (size_t c = 0; c < kChains; ++c) {
    for (size_t l = 0; l < kFloats; ++l) {
      result.max = std::max(result.max, max[c][l]);
      result.has_nan |= nan[c][l] != 0;
    }
  }
  for (; i < x.size(); ++i) {
    result.max = std::max(result.max, x[i]);
    result.has_nan |= std::isnan(x[i]);
  }
  return result;
}

// Sum of exp(x - max) over a block.
double SumExp(std::span<const float> x, float max) {
  Floats sums[kChains] = {};  // at most 64 terms of at most 1 in each lane: fp32 is enough
  size_t i = 0;
  for (; i + kChains * kFloats <= x.size(); i += kChains * kFloats) {
    for (size_t c = 0; c < kChains; ++c) sums[c] += Exp(LoadFloats(&x[i + c * kFloats]) - max);
  }
  double sum = 0.0;
  for (const Floats& v : sums) {
    for (size_t l = 0; l < kFloats; ++l) sum += static_cast<double>(v[l]);
  }
  for (; i < x.size(); ++i) sum += static_cast<double>(Exp(Floats{} + (x[i] - max))[0]);
  return sum;
}

template <bool kWithSum>
RowSummary Scan(std::span<const float> logits) {
  RowSummary row;
  row.max = -kInfinity;
  double sum = 0.0;
  size_t best_block = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const auto block = logits.subspan(begin, std::min(kBlock, logits.size() - begin));
    const BlockMax found = MaxOf(block);
    if (found.has_nan) {
      row.has_nan = true;
      return row;
    }
    if (found.max > row.max) {
      if constexpr (kWithSum)
        sum *= row.max == -kInfinity ? 0.0 : static_cast<double>(Exp(Floats{} + (row.max - found.max))[0]);
      row.max = found.max;
      best_block = begin;
    }
    // After a +inf only the number of +inf counts (below); before any number there is nothing to add.
    if (kWithSum && std::isfinite(row.max)) sum += SumExp(block, row.max);
  }
  const auto first = logits.begin() + static_cast<std::ptrdiff_t>(best_block);
  row.argmax = static_cast<TokenId>(std::find(first, logits.end(), row.max) - logits.begin());
  if constexpr (kWithSum) {
    if (row.max == kInfinity) sum = static_cast<double>(std::count(logits.begin(), logits.end(), kInfinity));
    row.log_sum_exp = std::log(sum);
  }
  return row;
}

}  // namespace

double RowSummary::LogProb(float logit) const {
  const double distance = logit == max ? 0.0 : static_cast<double>(logit) - static_cast<double>(max);
  return distance - log_sum_exp;
}

RowSummary Summarize(std::span<const float> logits) { return Scan<true>(logits); }

RowSummary FindMax(std::span<const float> logits) { return Scan<false>(logits); }

double ExpWeights(std::span<const float> logits, float max, double scale, std::span<float> weights) {
  const auto factor = static_cast<float>(std::min(scale, static_cast<double>(std::numeric_limits<float>::max())));
  double sum = 0.0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, logits.size());
    Floats sums[kChains] = {};
    size_t i = begin;
    for (; i + kChains * kFloats <= end; i += kChains * kFloats) {
      for (size_t c = 0; c < kChains; ++c) {
        const size_t at = i + c * kFloats;
        const Floats weight = Exp((LoadFloats(&logits[at]) - max) * factor);
        sums[c] += weight;
        std::memcpy(&weights[at], &weight, sizeof(weight));
      }
    }
    for (const Floats& v : sums) {
      for (size_t l = 0; l < kFloats; ++l) sum += static_cast<double>(v[l]);
    }
    for (; i < end; ++i) {
      weights[i] = Exp(Floats{} + (logits[i] - max) * factor)[0];
      sum += static_cast<double>(weights[i]);
    }
  }
  return sum;
}

}  // namespace kvasir
