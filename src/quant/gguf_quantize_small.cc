// Blocks of 32 values with one scale, and a minimum or none.
#include "quant/gguf_quantize_fit.h"
#include "quant/gguf_quantize_internal.h"

namespace kvasir {
namespace {

using namespace fit;  // NOLINT(google-build-using-namespace): the toolbox of these few lines

constexpr int kSize = 32;

template <typename Grid, int kTries, int kTenths>
void OneScale(const float* x, const float* w, GgufBlock* out) {
  constexpr float kStep = 0.1f * kTenths;
  const float scale = ToHalf(FitScale<Grid, kSize>(x, w, kTries, kStep));
  out->d = HalfBits(scale);
  Encode<Grid, kSize>(x, w, scale, out->codes);
}

template <int kLevels>
void ScaleAndMinimum(const float* x, const float* w, GgufBlock* out) {
  const AffineSums sums = SumsOf<kSize>(x, w);
  const auto mean = static_cast<float>(sums.x / sums.w);
  float centred[kSize];
  for (int i = 0; i < kSize; ++i) centred[i] = x[i] - mean;
  const AffineFit found = FitAffine<kLevels, kSize>(centred, w, 3e38f, 4, 0.3f);
  const float minimum = ToHalf(found.minimum + mean);
  // The minimum's rounding shifts all values, which the scale may make up for.
  const AffineSums shifted = SumsOf<kSize>(centred, w);
  const CodeSums codes = SumsOfCodes<kLevels, kSize>(centred, w, Inverse(found.scale), minimum - mean);
  const double scale = codes.qq > 0.0 ? (codes.xq - (minimum - mean) * codes.q) / codes.qq : 0.0;
  const double before = ErrorOf(shifted, codes, found.scale, minimum - mean);
  const bool better = ErrorOf(shifted, codes, scale, minimum - mean) < before && scale > 0.0;
  const float rounded = ToHalf(better ? static_cast<float>(scale) : found.scale);
  out->d = HalfBits(rounded);
  out->dmin = HalfBits(minimum);
  EncodeAffine<kLevels, kSize>(x, w, rounded, minimum, out->codes);
}

/// Powers of two are few enough to try all that could be best.
void PowerOfTwo(const float* x, const float* w, GgufBlock* out) {
  constexpr float kLargest = 12.0f;  // of kMxfp4Values
  const float extreme = std::abs(Extreme<kSize>(x));
  int high = 0;
  std::frexp(extreme / kLargest, &high);
  double least = -1.0;
  for (int power = high - 1; power <= high + 1; ++power) {
    const int exponent = std::clamp(power, -128, 126);
    double error = 0.0;
    uint8_t codes[kSize];
    for (int i = 0; i < kSize; ++i) {
      const double scaled = std::ldexp(std::abs(static_cast<double>(x[i])), -exponent);
      int code = 0;
      for (int c = 1; c < 8; ++c) {
        // Midpoints go to the even code, as OCP's rounding to nearest even has it.
        const double middle = 0.5 * (kMxfp4Values[c - 1] + kMxfp4Values[c]);
        if (scaled > middle || (scaled == middle && c % 2 == 0)) code = c;
      }
      const double difference = scaled - kMxfp4Values[code];
      error += static_cast<double>(w[i]) * std::ldexp(difference * difference, 2 * (exponent - high));
      codes[i] = static_cast<uint8_t>(code | (x[i] < 0.0f ? 8 : 0));
    }
    if (least >= 0.0 && error >= least) continue;
    least = error;
    out->scales[0] = static_cast<uint8_t>(exponent + 128);
    std::copy_n(codes, kSize, out->codes);
  }
}

}  // namespace

BlockQuantizer SmallBlockQuantizer(DType type) {
  switch (type) {
    case DType::kQ4_0: return OneScale<Integers<-8, 7>, 4, 3>;
    case DType::kQ5_0: return OneScale<Integers<-16, 15>, 4, 3>;
    // -128 is left out: programs that take magnitudes of eight bits trip over it.
    case DType::kQ8_0: return OneScale<Integers<-127, 127, 128>, 1, 3>;
    case DType::kIQ4_NL: return OneScale<Iq4Grid, 3, 4>;
    case DType::kQ4_1: return ScaleAndMinimum<15>;
    case DType::kQ5_1: return ScaleAndMinimum<31>;
    case DType::kMXFP4: return PowerOfTwo;
    default: return nullptr;
  }
}

}  // namespace kvasir
