// Blocks of 256 values in sub-blocks with integer scales and minima: x ≈ d · s · q - dmin · m.
#include "quant/gguf_quantize_fit.h"
#include "quant/gguf_quantize_internal.h"

namespace kvasir {
namespace {

using namespace fit;  // NOLINT(google-build-using-namespace): the toolbox of these few lines

constexpr int kSize = 256;

/// Codes from 0 to kLevels; kSub values share a scale and a minimum from 0 to kMost. `kTries`, `kStep` (in tenths of a
/// code): of each sub-block's scale.
template <int kLevels, int kSub, int kMost, int kTries, int kStep>
class Quantizer {
 public:
  static void Run(const float* x, const float* w, GgufBlock* out) { Quantizer(x, w).Search(out); }

 private:
  static constexpr int kSubs = kSize / kSub;

  struct Choice {
    float d = 0.0f;
    float dmin = 0.0f;
    double error = 0.0;
    std::array<int, kSubs> scales{};
    std::array<int, kSubs> mins{};
    uint8_t codes[kSize]{};
  };

  Quantizer(const float* x, const float* w) : x_(x), w_(w) {}

  void Search(GgufBlock* out) {
    float largest_scale = 0.0f;
    float largest_minimum = 0.0f;
    for (int j = 0; j < kSubs; ++j) {
      sums_[j] = SumsOf<kSub>(x_ + j * kSub, w_ + j * kSub);
      fits_[j] = FitAffine<kLevels, kSub>(x_ + j * kSub, w_ + j * kSub, 0.0f, kTries, 0.1f * kStep);
      largest_scale = std::max(largest_scale, fits_[j].scale);
      largest_minimum = std::max(largest_minimum, -fits_[j].minimum);
    }
    const float d = ToHalf(largest_scale / kMost);
    const float dmin = ToHalf(largest_minimum / kMost);
    Choice best = Assign(d, dmin);
    if constexpr (kMost < 32) {
      // Coarse scales: it is worth while to give up the largest ones for finer steps.
      for (const float cut : {0.94f, 0.88f}) {
        Improve(ToHalf(d * cut), dmin, &best);
        Improve(best.d, ToHalf(dmin * cut), &best);
      }
    }
    // Below the normal numbers fp16 is coarse: larger steps with smaller integers may come nearer.
    for (int end = kMost / 2; end >= 1 && std::max(d, dmin) < kLeastNormalHalf; end /= 2) {
      Improve(ToHalf(largest_scale / static_cast<float>(end)), ToHalf(largest_minimum / static_cast<float>(end)),
              &best);
    }
    for (int round = 0; round < 3; ++round) {
      const auto [next_d, next_dmin] = Refitted(best);
      if ((next_d == best.d && next_dmin == best.dmin) || !Improve(next_d, next_dmin, &best)) break;
    }
    out->d = HalfBits(best.d);
    out->dmin = HalfBits(best.dmin);
    for (int j = 0; j < kSubs; ++j) {
      out->scales[j] = static_cast<uint8_t>(best.scales[j]);
      out->mins[j] = static_cast<uint8_t>(best.mins[j]);
    }
    std::copy_n(best.codes, kSize, out->codes);
  }

  bool Improve(float d, float dmin, Choice* best) const {
    const Choice now = Assign(d, dmin);
    if (!(now.error < best->error)) return false;
    *best = now;
    return true;
  }

  static int ToInteger(double wanted) { return static_cast<int>(std::lrint(std::clamp<double>(wanted, 0.0, kMost))); }

  /// Integers and codes for these numbers: both scales around a sub-block's own, each with the minimum that suits it.
  Choice Assign(float d, float dmin) const {
    Choice choice{.d = d, .dmin = dmin};
    const double inverse = Inverse(d);
    const double inverse_min = Inverse(dmin);
    for (int j = 0; j < kSubs; ++j) {
      const float* const x = x_ + j * kSub;
      const float* const w = w_ + j * kSub;
      const double wanted = std::clamp<double>(fits_[j].scale * inverse, 0.0, kMost);
      const int nearest = ToInteger(wanted);
      const int other = std::clamp(nearest + (wanted > nearest ? 1 : -1), 0, kMost);
      float least = -1.0f;
      for (const int scale : {nearest, other}) {
        if (scale == other && least >= 0.0f && other == nearest) continue;
        const float step = d * static_cast<float>(scale);
        const CodeSums c = SumsOfCodes<kLevels, kSub>(x, w, Inverse(step), fits_[j].minimum);
        const double minimum = sums_[j].w > 0.0 ? (step * c.q - sums_[j].x) / sums_[j].w : 0.0;
        const int integer = ToInteger(minimum * inverse_min);
        uint8_t codes[kSub];
        const float error = EncodeAffine<kLevels, kSub>(x, w, step, -(dmin * static_cast<float>(integer)), codes);
        if (least >= 0.0f && error >= least) continue;
        least = error;
        choice.scales[j] = scale;
        choice.mins[j] = integer;
        std::copy_n(codes, kSub, choice.codes + j * kSub);
      }
      choice.error += least;
    }
    return choice;
  }

  /// d and dmin of least error for the integers and codes of a choice.
  std::pair<float, float> Refitted(const Choice& choice) const {
    double aa = 0.0, ab = 0.0, bb = 0.0, xa = 0.0, xb = 0.0;  // x ≈ d·a - dmin·b
    for (int j = 0; j < kSubs; ++j) {
      const CodeSums c = SumsOfGiven(x_ + j * kSub, w_ + j * kSub, choice.codes + j * kSub);
      const double s = choice.scales[j];
      const double m = choice.mins[j];
      aa += s * s * c.qq;
      ab += s * m * c.q;
      bb += m * m * sums_[j].w;
      xa += s * c.xq;
      xb += m * sums_[j].x;
    }
    const double determinant = aa * bb - ab * ab;
    if (determinant > 1e-6 * aa * bb) {
      return {ToHalf(static_cast<float>((bb * xa - ab * xb) / determinant)),
              ToHalf(static_cast<float>((ab * xa - aa * xb) / determinant))};
    }
    return {aa > 0.0 ? ToHalf(static_cast<float>((xa + choice.dmin * ab) / aa)) : choice.d, choice.dmin};
  }

  static CodeSums SumsOfGiven(const float* x, const float* w, const uint8_t* codes) {
    F4 sq = Splat(0.0f);
    F4 sqq = Splat(0.0f);
    F4 sxq = Splat(0.0f);
    for (int i = 0; i < kSub; i += 4) {
      const F4 q{static_cast<float>(codes[i]), static_cast<float>(codes[i + 1]), static_cast<float>(codes[i + 2]),
                 static_cast<float>(codes[i + 3])};
      const F4 wq = Load(w + i) * q;
      sq += wq;
      sqq += wq * q;
      sxq += wq * Load(x + i);
    }
    return {Sum(sq), Sum(sqq), Sum(sxq)};
  }

  const float* x_;
  const float* w_;
  std::array<AffineSums, kSubs> sums_{};
  std::array<AffineFit, kSubs> fits_{};
};

}  // namespace

BlockQuantizer AffineBlockQuantizer(DType type) {
  switch (type) {
    case DType::kQ2_K: return Quantizer<3, 16, 15, 5, 2>::Run;
    case DType::kQ4_K: return Quantizer<15, 32, 63, 4, 3>::Run;
    case DType::kQ5_K: return Quantizer<31, 32, 63, 3, 4>::Run;
    default: return nullptr;
  }
}

}  // namespace kvasir
