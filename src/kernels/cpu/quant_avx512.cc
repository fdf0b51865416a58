// Products of block formats for AVX-512 with VNNI.
#include "kernels/cpu/quant_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {
namespace {

/// Vec with the integer operations that block formats need.
struct IntVec : Vec {
  static constexpr const FormatKernels& kFloatKernels = kF32Kernels;
  static constexpr bool kSignedBytes = false;  // vpdpbusd takes unsigned times signed
  static U And(U a, U b) { return _mm512_and_si512(a, b); }
  static U Or(U a, U b) { return _mm512_or_si512(a, b); }
  static U MaxU(U a, U b) { return _mm512_max_epu32(a, b); }
  template <int kBits>
  static U ShiftLeft(U a) {
    return _mm512_slli_epi32(a, kBits);
  }
  template <int kBits>
  static U ShiftRight(U a) {
    return _mm512_srli_epi32(a, kBits);
  }
  static U ShiftRightBy(U a, int bits) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
  static U SetBytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static U SetDwords(int x) { return _mm512_set1_epi32(x); }
  /// Reads memory once: GCC would do so for every use.
  static U LoadOnce(const std::byte* p) {
    U v = LoadU(p);
    __asm__("" : "+v"(v));
    return v;
  }
  static U Broadcast(const std::byte* p) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
  static U LoadTable(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static U LookUp(U table, U index) { return _mm512_shuffle_epi8(table, index); }
  static U WidenU8(const std::byte* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static U AddDwords(U a, U b) { return _mm512_add_epi32(a, b); }
  static U Add16(U a, U b) { return _mm512_add_epi16(a, b); }
  static U Mul16(U a, U b) { return _mm512_mullo_epi16(a, b); }
  template <int kBits>
  static U ShiftRight16(U a) {
    return _mm512_srli_epi16(a, kBits);
  }
  /// The low half of each dword in both its halves.
  static U PairLow(U a) { return Or(And(a, SetDwords(0xffff)), ShiftLeft<16>(a)); }
  static U ToI(F v) { return _mm512_cvtps_epi32(v); }
  static F ToF(U a) { return _mm512_cvtepi32_ps(a); }
  /// How many lanes of a are greater than those of b.
  static int CountGreater(F a, F b) { return __builtin_popcount(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)); }
  /// To nearest even; |v| <= 127.
  static void NarrowI8(F v, int8_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  /// acc + the four products of each dword's unsigned bytes of w and signed bytes of x.
  template <bool kWideCodes>
  static U Dot(U acc, U w, U x) {
    return _mm512_dpbusd_epi32(acc, w, x);
  }
};

constexpr simd::QuantTiles kTiles{.direct = 8,
                                  .swept = 6,
                                  .strip = 6,
                                  .panels = 2,
                                  .widen_from = 25,
                                  .widen_units_from = 17,
                                  .widen_bytes_from = 65,
                                  .round_from = 32};

}  // namespace

constinit const FormatKernels kQuantKernels[kQuantFormats] = KVASIR_QUANT_KERNELS(IntVec, kTiles);

}  // namespace kvasir::avx512
