// Products of block formats for NEON, without the dot-product extension.
#include "kernels/cpu/quant_impl.h"
#include "kernels/cpu/vec_neon.h"

namespace kvasir::neon {
namespace {

/// Vec with the integer operations that block formats need.
struct IntVec : Vec {
  static constexpr const FormatKernels& kFloatKernels = kF32Kernels;
  static constexpr bool kSignedBytes = true;
  static U And(U a, U b) { return vandq_u32(a, b); }
  static U Or(U a, U b) { return vorrq_u32(a, b); }
  static U MaxU(U a, U b) { return vmaxq_u32(a, b); }
  template <int kBits>
  static U ShiftLeft(U a) {
    return vshlq_n_u32(a, kBits);
  }
  template <int kBits>
  static U ShiftRight(U a) {
    if constexpr (kBits == 0) return a;
    return vshrq_n_u32(a, kBits == 0 ? 1 : kBits);
  }
  static U ShiftRightBy(U a, int bits) { return vshlq_u32(a, vdupq_n_s32(-bits)); }
  static U SetBytes(int x) { return vreinterpretq_u32_u8(vdupq_n_u8(static_cast<uint8_t>(x))); }
  static U SetDwords(int x) { return vdupq_n_u32(static_cast<uint32_t>(x)); }
  static U AddDwords(U a, U b) { return vaddq_u32(a, b); }
  static U LoadOnce(const std::byte* p) { return LoadU(p); }
  static U Broadcast(const std::byte* p) { return vdupq_n_u32(*reinterpret_cast<const uint32_t*>(p)); }
  static U LoadTable(const uint8_t* p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }
  static U LookUp(U table, U index) {
    return vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(table), vreinterpretq_u8_u32(index)));
  }
  static U WidenU8(const std::byte* p) {
    uint32_t four;
    __builtin_memcpy(&four, p, 4);
    return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
  }
  static F ToF(U a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a)); }
  /// How many lanes of a are greater than those of b.
  static int CountGreater(F a, F b) { return static_cast<int>(vaddvq_u32(vshrq_n_u32(vcgtq_f32(a, b), 31))); }
  /// To nearest even; |v| <= 127.
  static void NarrowI8(F v, int8_t* p) {
    const int16x4_t words = vmovn_s32(vcvtnq_s32_f32(v));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
    __builtin_memcpy(p, &four, 4);
  }
  /// acc + the four products of each dword's bytes of w and x: codes up to 127, or wide ones less 128. Pairs of
  /// products stay below 2^15.
  template <bool kWideCodes>
  static U Dot(U acc, U w, U x) {
    const U code = kWideCodes ? veorq_u32(w, SetBytes(128)) : w;
    const int8x16_t a = vreinterpretq_s8_u32(code);
    const int8x16_t b = vreinterpretq_s8_u32(x);
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    const int16x8_t high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
    return vreinterpretq_u32_s32(vpadalq_s16(vreinterpretq_s32_u32(acc), vpaddq_s16(low, high)));
  }
};

constexpr simd::QuantTiles kTiles{.direct = 4, .strip = 4, .panels = 1, .widen_from = 5};

}  // namespace

constinit const FormatKernels kQuantKernels[kQuantFormats] = KVASIR_QUANT_KERNELS(IntVec, kTiles);

}  // namespace kvasir::neon
