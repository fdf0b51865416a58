// The vector type of the AVX-512 kernels (F, BW, VL, DQ).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace kvasir::avx512 {
namespace {

/// 16 floats, or 16 dwords. Min and Max give the second operand where one is NaN.
struct Vec {
  using F = __m512;
  using U = __m512i;
  using M = __mmask16;
  static constexpr int kLanes = 16;

  static M FirstN(int n) { return static_cast<M>((1u << n) - 1u); }

  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static F LoadN(const float* p, int n, F fill) { return _mm512_mask_loadu_ps(fill, FirstN(n), p); }
  static void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void StoreN(float* p, F v, int n) { _mm512_mask_storeu_ps(p, FirstN(n), v); }
  static F Set1(float x) { return _mm512_set1_ps(x); }
  static F Zero() { return _mm512_setzero_ps(); }

  static U LoadU(const void* p) { return _mm512_loadu_si512(p); }
  static U LoadUN(const void* p, int n) { return _mm512_maskz_loadu_epi32(FirstN(n), p); }
  static void StoreU(void* p, U v) { _mm512_storeu_si512(p, v); }
  static void StoreUN(void* p, U v, int n) { _mm512_mask_storeu_epi32(p, FirstN(n), v); }
  static U AsU(F v) { return _mm512_castps_si512(v); }
  static F AsF(U v) { return _mm512_castsi512_ps(v); }

  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Sqrt(F v) { return _mm512_sqrt_ps(v); }
  static F Abs(F v) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), v); }
  static float HorizontalMax(F x) {
    const __m512 a = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    const __m512 b = _mm512_max_ps(a, _mm512_shuffle_f32x4(a, a, 0xb1));
    const __m512 c = _mm512_max_ps(b, _mm512_permute_ps(b, 0x4e));
    return _mm512_cvtss_f32(_mm512_max_ps(c, _mm512_permute_ps(c, 0xb1)));
  }
  static float HorizontalSum(F x) {
    const __m512 a = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    const __m512 b = _mm512_add_ps(a, _mm512_shuffle_f32x4(a, a, 0xb1));
    const __m512 c = _mm512_add_ps(b, _mm512_permute_ps(b, 0x4e));
    return _mm512_cvtss_f32(_mm512_add_ps(c, _mm512_permute_ps(c, 0xb1)));
  }
  static F CopySign(F magnitude, F sign) {
    const F bit = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(bit, magnitude), _mm512_and_ps(bit, sign));
  }
  static F Round(F v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static M Less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static F Select(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
  static F ScaleByPowerOf2(F v, F n) { return _mm512_scalef_ps(v, n); }

  static void Deinterleave(F a, F b, F* even, F* odd) {
    const U evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const U odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    *even = _mm512_permutex2var_ps(a, evens, b);
    *odd = _mm512_permutex2var_ps(a, odds, b);
  }
  static void Interleave(F even, F odd, F* a, F* b) {
    const U low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const U high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    *a = _mm512_permutex2var_ps(even, low, odd);
    *b = _mm512_permutex2var_ps(even, high, odd);
  }

  /// v[i] lane j ↔ v[j] lane i.
  static void Transpose(U (&v)[16]) {
    U t[16];
    for (int i = 0; i < 16; i += 4) {  // 4×4 blocks within 128-bit lanes
      const U a = _mm512_unpacklo_epi32(v[i], v[i + 1]);
      const U b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
      const U c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]);
      const U d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
      t[i] = _mm512_unpacklo_epi64(a, c);
      t[i + 1] = _mm512_unpackhi_epi64(a, c);
      t[i + 2] = _mm512_unpacklo_epi64(b, d);
      t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; ++i) {  // then the lanes
      const U a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
      const U b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
      const U c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
      const U d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
      v[i] = _mm512_shuffle_i32x4(a, c, 0x88);
      v[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
      v[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
      v[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
  }

  // 16 bf16 or fp16 pairs (dwords) as their even and odd elements.
  static F EvenBf16(U pairs) { return AsF(_mm512_slli_epi32(pairs, 16)); }
  static F OddBf16(U pairs) { return AsF(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536))); }
  static U SplitF16(U pairs) {
    const U order = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28, 26, 24, 22, 20,
                                     18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_permutexvar_epi16(order, pairs);
  }
  static F EvenF16(U split) { return _mm512_cvtph_ps(_mm512_castsi512_si256(split)); }
  static F OddF16(U split) { return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(split, 1)); }

  // 16 consecutive elements.
  static F WidenF16(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
  static F WidenBf16(const void* p) {
    const U words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    return AsF(_mm512_slli_epi32(words, 16));
  }
  static F WidenI8(const void* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
  /// 16 bytes of nibbles as 32 bytes: the low ones, then the high ones, minus 8.
  static void UnpackNibbles(const void* in, int8_t* out) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(in));
    const __m128i mask = _mm_set1_epi8(15);
    const __m128i eight = _mm_set1_epi8(8);
    const __m128i low = _mm_sub_epi8(_mm_and_si128(bytes, mask), eight);
    const __m128i high = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask), eight);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), low);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), high);
  }
  static void NarrowF16(F v, void* p) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  /// The bits of bf16(v) in the upper half of each dword, to nearest even, NaN quiet.
  static U RoundBf16(F v) {
    const U u = AsU(v);
    const U odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const U rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const U quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    const U chosen = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
    return _mm512_and_si512(chosen, _mm512_set1_epi32(-65536));
  }
  static void NarrowBf16(F v, void* p) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(RoundBf16(v), 16)));
  }

  [[gnu::always_inline]] static inline void PrefetchL1(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  [[gnu::always_inline]] static inline void PrefetchL2(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
};

}  // namespace
}  // namespace kvasir::avx512
