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
  static U LoadI8Pairs(const std::byte* p) {
    return vreinterpretq_u32_s16(vmovl_s8(vld1_s8(reinterpret_cast<const int8_t*>(p))));
  }
  static U LoadU8Pairs(const std::byte* p) {
    return vreinterpretq_u32_u16(vmovl_u8(vld1_u8(reinterpret_cast<const uint8_t*>(p))));
  }
  static U LowCodes(U bytes) { return vandq_u32(bytes, vdupq_n_u32(0x000f000fu)); }
  static U HighCodes(U bytes) { return vreinterpretq_u32_u16(vshrq_n_u16(vreinterpretq_u16_u32(bytes), 4)); }
  using I = int32x4_t;
  static I DotPairs(I acc, U a, U b) {
    const int16x8_t x = vreinterpretq_s16_u32(a);
    const int16x8_t y = vreinterpretq_s16_u32(b);
    const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y));
    return acc + vpaddq_s32(low, vmull_high_s16(x, y));
  }
  static F ToFloats(I x) { return vcvtq_f32_s32(x); }
  static void StoreWords(void* p, F x) {
    vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_s16(vqmovn_s32(vcvtnq_s32_f32(x))));
  }
  using Bf16 = simd::KvBf16<Vec>;
  using F16 = simd::KvF16<Vec>;
};

}  // namespace

constinit const AttentionKernels kAttentionKernels = simd::MakeAttentionKernels<AttentionVec>();

}  // namespace kvasir::neon
