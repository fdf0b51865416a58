// What attention needs of an AVX-512 vector besides Vec.
#pragma once

#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {
namespace {  // as Vec

struct AttentionVec : Vec {
  static constexpr int kMaxPass = 12;
  static constexpr int TilesAtOnce(int m) { return m <= 6 ? 4 : m <= 8 ? 3 : 2; }
  static constexpr int VectorsAtOnce(int m) { return m <= 2 ? 8 : m <= 6 ? 4 : 2; }

  static float First(F x) { return _mm512_cvtss_f32(x); }
  static F Difference(U x, int32_t b) { return _mm512_cvtepi32_ps(_mm512_sub_epi32(x, _mm512_set1_epi32(b))); }
  static F SelectInRange(U x, int32_t low, int32_t high, F a, F b) {
    const M above = _mm512_cmp_epi32_mask(x, _mm512_set1_epi32(low), _MM_CMPINT_NLT);
    return _mm512_mask_blend_ps(_mm512_mask_cmp_epi32_mask(above, x, _mm512_set1_epi32(high), _MM_CMPINT_LE), b, a);
  }
  static F ScaleOrZero(F p, F n, F x) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-125.0f), _CMP_NLT_UQ), p, n);
  }

  static U LoadI8Pairs(const std::byte* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static U LoadU8Pairs(const std::byte* p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static U LowCodes(U bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi32(0x000f000f)); }
  static U HighCodes(U bytes) { return _mm512_srli_epi16(bytes, 4); }
  /// A type of its own: where sums are __m512i, GCC 12 moves them about between products.
  using I = int32_t __attribute__((vector_size(64)));
  static I DotPairs(I acc, U a, U b) {
    return reinterpret_cast<I>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(acc), a, b));
  }
  static F ToFloats(I x) { return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(x)); }
  static void StoreWords(void* p, F x) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
  }
};

}  // namespace
}  // namespace kvasir::avx512
