// Products of block formats for AVX2.
#include "kernels/cpu/quant_impl.h"
#include "kernels/cpu/vec_avx2.h"

namespace kvasir::avx2 {
namespace {

/// Vec with the integer operations that block formats need.
struct IntVec : Vec {
  static constexpr const FormatKernels& kFloatKernels = kF32Kernels;
  static constexpr bool kSignedBytes = true;
  static U And(U a, U b) { return _mm256_and_si256(a, b); }
  static U Or(U a, U b) { return _mm256_or_si256(a, b); }
  static U MaxU(U a, U b) { return _mm256_max_epu32(a, b); }
  template <int kBits>
  static U ShiftLeft(U a) {
    return _mm256_slli_epi32(a, kBits);
  }
  template <int kBits>
  static U ShiftRight(U a) {
    return _mm256_srli_epi32(a, kBits);
  }
  static U ShiftRightBy(U a, int bits) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
  static U SetBytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static U SetDwords(int x) { return _mm256_set1_epi32(x); }
  static U AddDwords(U a, U b) { return _mm256_add_epi32(a, b); }
  static U LoadOnce(const std::byte* p) { return LoadU(p); }
  static U Broadcast(const std::byte* p) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
  static U LoadTable(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static U LookUp(U table, U index) { return _mm256_shuffle_epi8(table, index); }
  static U WidenU8(const std::byte* p) { return _mm256_cvtepu8_epi32(_mm_loadu_si64(p)); }
  static F ToF(U a) { return _mm256_cvtepi32_ps(a); }
  /// How many lanes of a are greater than those of b.
  static int CountGreater(F a, F b) {
    return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ))));
  }
  /// To nearest even; |v| <= 127.
  static void NarrowI8(F v, int8_t* p) {
    const U dwords = _mm256_cvtps_epi32(v);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(dwords), _mm256_extracti128_si256(dwords, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }
  /// acc + the four products of each dword's bytes of w and x: codes up to 127, or wide ones less 128. Pairs of
  /// products stay below 2^15, at which vpmaddubsw saturates.
  template <bool kWideCodes>
  static U Dot(U acc, U w, U x) {
    U pairs;
    if constexpr (kWideCodes) {
      const U code = _mm256_xor_si256(w, SetBytes(-128));
      pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(x, code));
    } else {
      pairs = _mm256_maddubs_epi16(w, x);
    }
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

constexpr simd::QuantTiles kTiles{.direct = 4, .strip = 4, .panels = 1, .widen_from = 5};

}  // namespace

constinit const FormatKernels kQuantKernels[kQuantFormats] = KVASIR_QUANT_KERNELS(IntVec, kTiles);

}  // namespace kvasir::avx2
