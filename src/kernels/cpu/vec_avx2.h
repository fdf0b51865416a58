// The vector type of the AVX2 kernels (with FMA and F16C).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace kvasir::avx2 {
namespace {

/// 8 floats, or 8 dwords. Min and Max give the second operand where one is NaN.
struct Vec {
  using F = __m256;
  using U = __m256i;
  using M = __m256;
  static constexpr int kLanes = 8;

  static U FirstN(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }

  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static F LoadN(const float* p, int n, F fill) {
    const U mask = FirstN(n);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
  }
  static void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static void StoreN(float* p, F v, int n) { _mm256_maskstore_ps(p, FirstN(n), v); }
  static F Set1(float x) { return _mm256_set1_ps(x); }
  static F Zero() { return _mm256_setzero_ps(); }

  static U LoadU(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static U LoadUN(const void* p, int n) { return _mm256_maskload_epi32(static_cast<const int*>(p), FirstN(n)); }
  static void StoreU(void* p, U v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  static void StoreUN(void* p, U v, int n) { _mm256_maskstore_epi32(static_cast<int*>(p), FirstN(n), v); }
  static U AsU(F v) { return _mm256_castps_si256(v); }
  static F AsF(U v) { return _mm256_castsi256_ps(v); }

  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static F Sqrt(F v) { return _mm256_sqrt_ps(v); }
  static F Abs(F v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
  static float HorizontalMax(F x) {
    const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
  }
  static float HorizontalSum(F x) {
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
  }
  static F CopySign(F magnitude, F sign) {
    const F bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
  }
  static F Round(F v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static M Less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static F Select(M m, F yes, F no) { return _mm256_blendv_ps(no, yes, m); }
  /// In two halves, since 2^n itself may be no normal number where v · 2^n is one.
  static F ScaleByPowerOf2(F v, F n) {
    const U whole = _mm256_cvtps_epi32(n);
    const U half = _mm256_srai_epi32(whole, 1);
    const U rest = _mm256_sub_epi32(whole, half);
    const U bias = _mm256_set1_epi32(127);
    const F first = AsF(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const F second = AsF(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(v, first), second);
  }

  static void Deinterleave(F a, F b, F* even, F* odd) {
    const F low = _mm256_permute2f128_ps(a, b, 0x20);
    const F high = _mm256_permute2f128_ps(a, b, 0x31);
    *even = _mm256_shuffle_ps(low, high, 0x88);  // a0 a2 a4 a6 | b0 b2 b4 b6
    *odd = _mm256_shuffle_ps(low, high, 0xdd);
  }
  static void Interleave(F even, F odd, F* a, F* b) {
    const F low = _mm256_unpacklo_ps(even, odd);
    const F high = _mm256_unpackhi_ps(even, odd);
    *a = _mm256_permute2f128_ps(low, high, 0x20);
    *b = _mm256_permute2f128_ps(low, high, 0x31);
  }

  /// v[i] lane j ↔ v[j] lane i.
  static void Transpose(U (&v)[8]) {
    U t[8];
    for (int i = 0; i < 8; i += 4) {
      const U a = _mm256_unpacklo_epi32(v[i], v[i + 1]);
      const U b = _mm256_unpackhi_epi32(v[i], v[i + 1]);
      const U c = _mm256_unpacklo_epi32(v[i + 2], v[i + 3]);
      const U d = _mm256_unpackhi_epi32(v[i + 2], v[i + 3]);
      t[i] = _mm256_unpacklo_epi64(a, c);
      t[i + 1] = _mm256_unpackhi_epi64(a, c);
      t[i + 2] = _mm256_unpacklo_epi64(b, d);
      t[i + 3] = _mm256_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_permute2x128_si256(t[i], t[i + 4], 0x20);
      v[i + 4] = _mm256_permute2x128_si256(t[i], t[i + 4], 0x31);
    }
  }

  // 8 bf16 or fp16 pairs (dwords) as their even and odd elements.
  static F EvenBf16(U pairs) { return AsF(_mm256_slli_epi32(pairs, 16)); }
  static F OddBf16(U pairs) { return AsF(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536))); }
  static U SplitF16(U pairs) {
    const U order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2,
                                     3, 6, 7, 10, 11, 14, 15);
    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(pairs, order), 0xd8);
  }
  static F EvenF16(U split) { return _mm256_cvtph_ps(_mm256_castsi256_si128(split)); }
  static F OddF16(U split) { return _mm256_cvtph_ps(_mm256_extracti128_si256(split, 1)); }

  // 8 consecutive elements.
  static F WidenF16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
  static F WidenBf16(const void* p) {
    const U words = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    return AsF(_mm256_slli_epi32(words, 16));
  }
  static F WidenI8(const void* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadu_si64(p))); }
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
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  /// The bits of bf16(v) in the upper half of each dword, to nearest even, NaN quiet.
  static U RoundBf16(F v) {
    const U u = AsU(v);
    const U odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const U rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    const U quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const F chosen = _mm256_blendv_ps(AsF(rounded), AsF(quiet), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_and_si256(AsU(chosen), _mm256_set1_epi32(-65536));
  }
  static void NarrowBf16(F v, void* p) {
    const U words = _mm256_srli_epi32(RoundBf16(v), 16);
    const U packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0xd8);
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }

  [[gnu::always_inline]] static inline void PrefetchL1(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  [[gnu::always_inline]] static inline void PrefetchL2(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
};

}  // namespace
}  // namespace kvasir::avx2
