// The vector type of the NEON kernels (64-bit Arm's base instruction set).
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace kvasir::neon {
namespace {

/// 4 floats, or 4 dwords. Min and Max give NaN where one operand is.
struct Vec {
  using F = float32x4_t;
  using U = uint32x4_t;
  using M = uint32x4_t;
  static constexpr int kLanes = 4;

  static F Load(const float* p) { return vld1q_f32(p); }
  static F LoadN(const float* p, int n, F fill) {
    float lanes[4];
    vst1q_f32(lanes, fill);
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return vld1q_f32(lanes);
  }
  static void Store(float* p, F v) { vst1q_f32(p, v); }
  static void StoreN(float* p, F v, int n) {
    float lanes[4];
    vst1q_f32(lanes, v);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  static F Set1(float x) { return vdupq_n_f32(x); }
  static F Zero() { return vdupq_n_f32(0.0f); }

  static U LoadU(const void* p) { return vreinterpretq_u32_u8(vld1q_u8(static_cast<const uint8_t*>(p))); }
  static U LoadUN(const void* p, int n) {
    uint32_t lanes[4] = {};
    __builtin_memcpy(lanes, p, static_cast<size_t>(n) * 4);
    return vld1q_u32(lanes);
  }
  static void StoreU(void* p, U v) { vst1q_u8(static_cast<uint8_t*>(p), vreinterpretq_u8_u32(v)); }
  static void StoreUN(void* p, U v, int n) {
    uint32_t lanes[4];
    vst1q_u32(lanes, v);
    __builtin_memcpy(p, lanes, static_cast<size_t>(n) * 4);
  }
  static U AsU(F v) { return vreinterpretq_u32_f32(v); }
  static F AsF(U v) { return vreinterpretq_f32_u32(v); }

  static F Add(F a, F b) { return vaddq_f32(a, b); }
  static F Sub(F a, F b) { return vsubq_f32(a, b); }
  static F Mul(F a, F b) { return vmulq_f32(a, b); }
  static F Div(F a, F b) { return vdivq_f32(a, b); }
  static F Fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F Fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
  static F Min(F a, F b) { return vminq_f32(a, b); }
  static F Max(F a, F b) { return vmaxq_f32(a, b); }
  static F Sqrt(F v) { return vsqrtq_f32(v); }
  static F Abs(F v) { return vabsq_f32(v); }
  static float HorizontalMax(F x) { return vmaxvq_f32(x); }
  static float HorizontalSum(F x) {
    const float32x2_t pairs = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(vpadd_f32(pairs, pairs), 0);
  }
  static F CopySign(F magnitude, F sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
  static F Round(F v) { return vrndnq_f32(v); }
  static M Less(F a, F b) { return vcltq_f32(a, b); }
  static F Select(M m, F yes, F no) { return vbslq_f32(m, yes, no); }
  /// In two halves, since 2^n itself may be no normal number where v · 2^n is one.
  static F ScaleByPowerOf2(F v, F n) {
    const int32x4_t whole = vcvtq_s32_f32(n);
    const int32x4_t half = vshrq_n_s32(whole, 1);
    const int32x4_t rest = vsubq_s32(whole, half);
    const int32x4_t bias = vdupq_n_s32(127);
    const F first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    const F second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return vmulq_f32(vmulq_f32(v, first), second);
  }

  static void Deinterleave(F a, F b, F* even, F* odd) {
    *even = vuzp1q_f32(a, b);
    *odd = vuzp2q_f32(a, b);
  }
  static void Interleave(F even, F odd, F* a, F* b) {
    *a = vzip1q_f32(even, odd);
    *b = vzip2q_f32(even, odd);
  }

  /// v[i] lane j ↔ v[j] lane i.
  static void Transpose(U (&v)[4]) {
    const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(v[0], v[1]));
    const uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(v[0], v[1]));
    const uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(v[2], v[3]));
    const uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(v[2], v[3]));
    v[0] = vreinterpretq_u32_u64(vtrn1q_u64(a, c));
    v[1] = vreinterpretq_u32_u64(vtrn1q_u64(b, d));
    v[2] = vreinterpretq_u32_u64(vtrn2q_u64(a, c));
    v[3] = vreinterpretq_u32_u64(vtrn2q_u64(b, d));
  }

  // 4 bf16 or fp16 pairs (dwords) as their even and odd elements.
  static F EvenBf16(U pairs) { return AsF(vshlq_n_u32(pairs, 16)); }
  static F OddBf16(U pairs) { return AsF(vandq_u32(pairs, vdupq_n_u32(0xffff0000u))); }
  static U SplitF16(U pairs) { return vreinterpretq_u32_u16(vcombine_u16(vmovn_u32(pairs), vshrn_n_u32(pairs, 16))); }
  static F EvenF16(U split) { return vcvt_f32_f16(vget_low_f16(vreinterpretq_f16_u32(split))); }
  static F OddF16(U split) { return vcvt_f32_f16(vget_high_f16(vreinterpretq_f16_u32(split))); }

  // 4 consecutive elements.
  static F WidenF16(const void* p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const uint8_t*>(p))));
  }
  static F WidenBf16(const void* p) {
    return AsF(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(static_cast<const uint8_t*>(p))), 16));
  }
  static F WidenI8(const void* p) {
    uint32_t four;
    __builtin_memcpy(&four, p, 4);
    const int16x8_t words = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
  }
  /// 16 bytes of nibbles as 32 bytes: the low ones, then the high ones, minus 8.
  static void UnpackNibbles(const void* in, int8_t* out) {
    const uint8x16_t bytes = vld1q_u8(static_cast<const uint8_t*>(in));
    const int8x16_t eight = vdupq_n_s8(8);
    vst1q_s8(out, vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), eight));
    vst1q_s8(out + 16, vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), eight));
  }
  static void NarrowF16(F v, void* p) { vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_f16(vcvt_f16_f32(v))); }
  /// The bits of bf16(v) in the upper half of each dword, to nearest even, NaN quiet.
  static U RoundBf16(F v) {
    const U u = AsU(v);
    const U odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const U rounded = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
    const U quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    return vandq_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), vdupq_n_u32(0xffff0000u));
  }
  static void NarrowBf16(F v, void* p) {
    vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_u16(vshrn_n_u32(RoundBf16(v), 16)));
  }

  [[gnu::always_inline]] static inline void PrefetchL1(const std::byte* p) { __builtin_prefetch(p, 0, 3); }
  [[gnu::always_inline]] static inline void PrefetchL2(const std::byte* p) { __builtin_prefetch(p, 0, 2); }
};

}  // namespace
}  // namespace kvasir::neon
