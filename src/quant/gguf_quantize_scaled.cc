// Blocks of 256 values in sub-blocks with integer scales: x ≈ d · l · q.
#include "quant/gguf_quantize_fit.h"
#include "quant/gguf_quantize_internal.h"

namespace kvasir {
namespace {

using namespace fit;  // NOLINT(google-build-using-namespace): the toolbox of these few lines

constexpr int kSize = 256;

/// kSub values share an integer scale from kLeast to kMost, stored as the number above -kZeroScale; `kTries`: of each
/// sub-block's scale.
template <typename Grid, int kSub, int kLeast, int kMost, int kZeroScale, int kTries, int kTenths>
class Quantizer {
 public:
  static void Run(const float* x, const float* w, GgufBlock* out) { Quantizer(x, w).Search(out); }

 private:
  static constexpr int kSubs = kSize / kSub;

  struct Choice {
    float d = 0.0f;
    double error = 0.0;
    std::array<int, kSubs> scales{};
    uint8_t codes[kSize]{};
  };

  Quantizer(const float* x, const float* w) : x_(x), w_(w) {}

  void Search(GgufBlock* out) {
    for (int j = 0; j < kSubs; ++j) {
      fits_[j] = FitScale<Grid, kSub>(x_ + j * kSub, w_ + j * kSub, kTries, 0.1f * kTenths);
    }
    const float extreme = Extreme<kSubs>(fits_.data());
    Choice best = Assign(ToHalf(extreme / kLeast));
    for (const float end : {static_cast<float>(kMost), kLeast + 1.5f, kLeast + 3.0f}) {
      // Fine scales gain nothing from a search.
      if (kLeast < -32 || extreme == 0.0f) break;
      Improve(ToHalf(extreme / end), &best);
    }
    // Below the normal numbers fp16 is coarse: a larger d with smaller integers may come nearer.
    for (int end = kLeast / 2; end <= -1 && std::abs(extreme / kLeast) < kLeastNormalHalf; end /= 2) {
      Improve(ToHalf(extreme / static_cast<float>(end)), &best);
    }
    for (int round = 0; round < 3; ++round) {
      const float d = Refitted(best);
      if (d == best.d || !Improve(d, &best)) break;
    }
    out->d = HalfBits(best.d);
    for (int j = 0; j < kSubs; ++j) out->scales[j] = static_cast<uint8_t>(best.scales[j] + kZeroScale);
    std::copy_n(best.codes, kSize, out->codes);
  }

  bool Improve(float d, Choice* best) const {
    const Choice now = Assign(d);
    if (!(now.error < best->error)) return false;
    *best = now;
    return true;
  }

  /// Scales and codes for this d: of the two integers around each sub-block's own scale the better one.
  Choice Assign(float d) const {
    Choice choice{.d = d};
    const float inverse = Inverse(d);
    for (int j = 0; j < kSubs; ++j) {
      const float* const x = x_ + j * kSub;
      const float* const w = w_ + j * kSub;
      uint8_t* const codes = choice.codes + j * kSub;
      const float wanted = std::clamp(fits_[j] * inverse, static_cast<float>(kLeast), static_cast<float>(kMost));
      const int nearest = static_cast<int>(std::lrintf(wanted));
      const int other = std::clamp(nearest + (wanted > static_cast<float>(nearest) ? 1 : -1), kLeast, kMost);
      float error = Encode<Grid, kSub>(x, w, d * static_cast<float>(nearest), codes);
      choice.scales[j] = nearest;
      if (kLeast >= -32 && other != nearest) {
        uint8_t second[kSub];
        const float now = Encode<Grid, kSub>(x, w, d * static_cast<float>(other), second);
        if (now < error) {
          error = now;
          choice.scales[j] = other;
          std::copy_n(second, kSub, codes);
        }
      }
      choice.error += error;
    }
    return choice;
  }

  /// The d of least error for the scales and codes of a choice.
  float Refitted(const Choice& choice) const {
    double xq = 0.0;
    double qq = 0.0;
    for (int j = 0; j < kSubs; ++j) {
      const float scale = choice.d * static_cast<float>(choice.scales[j]);
      const ScaleFit own = Refit<Grid, kSub>(x_ + j * kSub, w_ + j * kSub, Inverse(scale));
      if (own.scale == 0.0f) continue;
      // Refit's a/b and a²/b give back a = Σ wxq and b = Σ wq².
      const double a = static_cast<double>(own.gain) / own.scale;
      xq += a * choice.scales[j];
      qq += a / own.scale * choice.scales[j] * choice.scales[j];
    }
    return qq > 0.0 ? ToHalf(static_cast<float>(xq / qq)) : choice.d;
  }

  const float* x_;
  const float* w_;
  std::array<float, kSubs> fits_{};
};

}  // namespace

BlockQuantizer ScaledBlockQuantizer(DType type) {
  switch (type) {
    case DType::kQ3_K: return Quantizer<Integers<-4, 3>, 16, -32, 31, 32, 4, 2>::Run;
    case DType::kQ6_K: return Quantizer<Integers<-32, 31>, 16, -128, 127, 0, 2, 4>::Run;
    case DType::kIQ4_XS: return Quantizer<Iq4Grid, 32, -32, 31, 32, 3, 4>::Run;
    default: return nullptr;
  }
}

}  // namespace kvasir
