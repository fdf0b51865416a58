// Attention for NEON.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/vec_neon.h"

namespace kvasir::neon {
namespace {

struct AttentionVec : Vec {
  static constexpr int kMaxPass = 4;
  static constexpr int TilesAtOnce(int m) { return m >= 4 ? 1 : 2; }
  static constexpr int VectorsAtOnce(int) { return 4; }

  static float First(F x) { return vgetq_lane_f32(x, 0); }
  static float HorizontalMax(F x) { return vmaxvq_f32(x); }
  static float HorizontalSum(F x) {
    const float32x2_t pairs = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(vpadd_f32(pairs, pairs), 0);
  }
  static F Difference(U x, int32_t b) { return vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(x), vdupq_n_s32(b))); }
  static F SelectInRange(U x, int32_t low, int32_t high, F a, F b) {
    const int32x4_t signed_x = vreinterpretq_s32_u32(x);
    const U inside = vandq_u32(vcgeq_s32(signed_x, vdupq_n_s32(low)), vcleq_s32(signed_x, vdupq_n_s32(high)));
    return vbslq_f32(inside, a, b);
  }
  static F ScaleOrZero(F p, F n, F x) {
    // A NaN's n converts to 0: it stays a NaN.
    const int32x4_t exponent = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    const U scaled = vreinterpretq_u32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent));
    return AsF(vbicq_u32(scaled, vcltq_f32(x, vdupq_n_f32(-125.0f))));
  }
  using Bf16 = simd::KvBf16<Vec>;
};

}  // namespace

constinit const AttentionKernels kAttentionKernels = simd::MakeAttentionKernels<AttentionVec>();

}  // namespace kvasir::neon
