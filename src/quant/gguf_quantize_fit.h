// Least squares on a few dozen values, the step that all quantisers of blocks are made of; internal to quant/.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "quant/gguf_blocks.h"

namespace kvasir::fit {

// Four lanes, so that sums are made in one order whatever the compiler does.
using F4 = float __attribute__((vector_size(16)));

inline F4 Load(const float* x) {
  F4 v;
  std::memcpy(&v, x, sizeof(v));
  return v;
}
inline F4 Splat(float x) { return F4{x, x, x, x}; }
inline float Sum(F4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline F4 Clamp(F4 v, float low, float high) {
  v = v < low ? Splat(low) : v;
  return v > high ? Splat(high) : v;
}
/// To nearest even. REQUIRES: |v| < 2^22.
inline F4 Round(F4 v) {
  const F4 shift = Splat(12582912.0f);  // 1.5 · 2^23: no bits are left below the point
  return (v + shift) - shift;
}

/// The integers from kLow to kHigh, with the code kZero for 0.
template <int kLow, int kHigh, int kZero = -kLow>
struct Integers {
  static constexpr float kMin = kLow;
  static constexpr float kMax = kHigh;
  static constexpr float kStep = 1.0f;
  static F4 Nearest(F4 v) { return Round(Clamp(v, kMin, kMax)); }
  static F4 Code(F4 nearest) { return nearest + static_cast<float>(kZero); }
};

/// iq4_nl's and iq4_xs' values; a code is an index into their table.
struct Iq4Grid {
  static constexpr float kMin = -127.0f;
  static constexpr float kMax = 113.0f;
  static constexpr float kStep = 16.0f;
  static F4 Nearest(F4 v) {
    F4 value = Splat(kMin);
    for (int i = 1; i < 16; ++i) {
      const auto low = static_cast<float>(kIq4Values[i - 1]);
      const auto high = static_cast<float>(kIq4Values[i]);
      value = v > Splat(0.5f * (low + high)) ? Splat(high) : value;
    }
    return value;
  }
  static F4 Code(F4 nearest) {
    F4 code = Splat(0.0f);
    for (int i = 1; i < 16; ++i) {
      code = nearest >= Splat(static_cast<float>(kIq4Values[i])) ? Splat(static_cast<float>(i)) : code;
    }
    return code;
  }
};

/// 1 / scale; 0 where that would be no number.
inline float Inverse(float scale) { return std::abs(scale) > 1e-30f ? 1.0f / scale : 0.0f; }

inline constexpr float kLeastNormalHalf = 0x1p-14f;

inline float ToHalf(float x) { return ToFloat(ToFloat16(std::clamp(x, -65504.0f, 65504.0f))); }
inline uint16_t HalfBits(float x) { return ToFloat16(std::clamp(x, -65504.0f, 65504.0f)).bits; }

/// The value of largest magnitude, with its sign.
template <int kN>
float Extreme(const float* x) {
  float extreme = 0.0f;
  for (int i = 0; i < kN; ++i) extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
  return extreme;
}

// --- One scale: x ≈ scale · q ------------------------------------------------------------------------------------

struct ScaleFit {
  float scale = 0.0f;
  float gain = 0.0f;  // by how much Σ w·(x - scale·q)² is less than Σ w·x²
};

/// The best scale for the codes that 1/inverse gives.
template <typename Grid, int kN>
ScaleFit Refit(const float* x, const float* w, float inverse) {
  F4 xq = Splat(0.0f);
  F4 qq = Splat(0.0f);
  for (int i = 0; i < kN; i += 4) {
    const F4 value = Load(x + i);
    const F4 q = Grid::Nearest(value * inverse);
    const F4 wq = Load(w + i) * q;
    xq += wq * value;
    qq += wq * q;
  }
  const float a = Sum(xq);
  const float b = Sum(qq);
  return b > 0.0f ? ScaleFit{a / b, a / b * a} : ScaleFit{};
}

/// A scale of least error: `tries` scales on both sides of those that put the extreme value on the grid's lower or
/// upper end, `step` of the grid's steps apart; then codes and scale in turn, as long as it gets better.
template <typename Grid, int kN>
float FitScale(const float* x, const float* w, int tries, float step) {
  const float extreme = Extreme<kN>(x);
  if (Inverse(extreme) == 0.0f) return 0.0f;
  ScaleFit best;
  for (const float end : {Grid::kMin, Grid::kMax}) {
    for (int k = -tries; k <= tries; ++k) {
      const ScaleFit now = Refit<Grid, kN>(x, w, (end + step * Grid::kStep * static_cast<float>(k)) / extreme);
      if (now.gain > best.gain) best = now;
    }
  }
  for (int round = 0; round < 4; ++round) {
    const ScaleFit now = Refit<Grid, kN>(x, w, Inverse(best.scale));
    if (!(now.gain > best.gain)) break;
    best = now;
  }
  return best.scale;
}

/// Codes for this very scale, and what it costs: Σ w·(x - scale·q)².
template <typename Grid, int kN>
float Encode(const float* x, const float* w, float scale, uint8_t* codes) {
  const float inverse = Inverse(scale);
  F4 error = Splat(0.0f);
  for (int i = 0; i < kN; i += 4) {
    const F4 value = Load(x + i);
    const F4 q = Grid::Nearest(value * inverse);
    const F4 difference = value - q * scale;
    error += Load(w + i) * difference * difference;
    const F4 code = Grid::Code(q);
    for (int lane = 0; lane < 4; ++lane) codes[i + lane] = static_cast<uint8_t>(code[lane]);
  }
  return Sum(error);
}

// --- A scale and a minimum: x ≈ scale · q + minimum, q = 0 … kLevels -----------------------------------------------

struct AffineFit {
  float scale = 0.0f;
  float minimum = 0.0f;
  double error = 0.0;
};

/// Sums over the values of a block that do not depend on its codes.
struct AffineSums {
  double w = 0.0, x = 0.0, xx = 0.0;
};

template <int kN>
AffineSums SumsOf(const float* x, const float* w) {
  F4 sw = Splat(0.0f);
  F4 sx = Splat(0.0f);
  F4 sxx = Splat(0.0f);
  for (int i = 0; i < kN; i += 4) {
    const F4 value = Load(x + i);
    const F4 weight = Load(w + i);
    sw += weight;
    sx += weight * value;
    sxx += weight * value * value;
  }
  return {Sum(sw), Sum(sx), Sum(sxx)};
}

/// Sums that depend on codes.
struct CodeSums {
  double q = 0.0, qq = 0.0, xq = 0.0;
};

template <int kLevels, int kN>
CodeSums SumsOfCodes(const float* x, const float* w, float inverse, float minimum) {
  F4 sq = Splat(0.0f);
  F4 sqq = Splat(0.0f);
  F4 sxq = Splat(0.0f);
  for (int i = 0; i < kN; i += 4) {
    const F4 value = Load(x + i);
    const F4 q = Round(Clamp((value - minimum) * inverse, 0.0f, kLevels));
    const F4 wq = Load(w + i) * q;
    sq += wq;
    sqq += wq * q;
    sxq += wq * value;
  }
  return {Sum(sq), Sum(sqq), Sum(sxq)};
}

inline double ErrorOf(const AffineSums& s, const CodeSums& c, double scale, double minimum) {
  return s.xx - 2.0 * scale * c.xq - 2.0 * minimum * s.x + scale * scale * c.qq + 2.0 * scale * minimum * c.q +
         minimum * minimum * s.w;
}

/// The best scale and minimum, at most `most`, for the codes that 1/inverse and `minimum` give.
template <int kLevels, int kN>
AffineFit RefitAffine(const float* x, const float* w, const AffineSums& sums, float inverse, float minimum,
                      float most) {
  const CodeSums c = SumsOfCodes<kLevels, kN>(x, w, inverse, minimum);
  const double determinant = sums.w * c.qq - c.q * c.q;
  double scale = determinant > 0.0 ? (sums.w * c.xq - sums.x * c.q) / determinant : 0.0;
  double low = sums.w > 0.0 ? (sums.x - scale * c.q) / sums.w : 0.0;
  if (low > most) {
    low = most;
    scale = c.qq > 0.0 ? (c.xq - low * c.q) / c.qq : 0.0;
  }
  return {static_cast<float>(scale), static_cast<float>(low), ErrorOf(sums, c, scale, low)};
}

/// Scale and minimum (at most `most`) of least error: scales around those that spread the block's range over all
/// codes, then codes and numbers in turn. x is best centred, since sums are in fp32.
template <int kLevels, int kN>
AffineFit FitAffine(const float* x, const float* w, float most, int tries, float step) {
  float low = std::min(x[0], most);
  float high = x[0];
  for (int i = 1; i < kN; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  const AffineSums sums = SumsOf<kN>(x, w);
  if (Inverse(high - low) == 0.0f) return {0.0f, low, 0.0};
  AffineFit best{0.0f, low, sums.xx - 2.0 * low * sums.x + static_cast<double>(low) * low * sums.w};
  for (int k = -tries; k <= tries; ++k) {
    const float inverse = (kLevels + step * static_cast<float>(k)) / (high - low);
    const AffineFit now = RefitAffine<kLevels, kN>(x, w, sums, inverse, low, most);
    if (now.error < best.error && now.scale > 0.0f) best = now;
  }
  for (int round = 0; round < 4; ++round) {
    const AffineFit now = RefitAffine<kLevels, kN>(x, w, sums, Inverse(best.scale), best.minimum, most);
    if (!(now.error < best.error && now.scale > 0.0f)) break;
    best = now;
  }
  return best;
}

/// Codes for these very numbers, and their cost.
template <int kLevels, int kN>
float EncodeAffine(const float* x, const float* w, float scale, float minimum, uint8_t* codes) {
  const float inverse = Inverse(scale);
  F4 error = Splat(0.0f);
  for (int i = 0; i < kN; i += 4) {
    const F4 value = Load(x + i);
    const F4 q = Round(Clamp((value - minimum) * inverse, 0.0f, kLevels));
    const F4 difference = value - q * scale - minimum;
    error += Load(w + i) * difference * difference;
    for (int lane = 0; lane < 4; ++lane) codes[i + lane] = static_cast<uint8_t>(q[lane]);
  }
  return Sum(error);
}

}  // namespace kvasir::fit
