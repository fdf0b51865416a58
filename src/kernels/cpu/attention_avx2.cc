// Attention for AVX2.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/vec_avx2.h"

namespace kvasir::avx2 {
namespace {

struct AttentionVec : Vec {
  static constexpr int kMaxPass = 4;
  static constexpr int TilesAtOnce(int m) { return m >= 4 ? 1 : m == 2 ? 2 : 4; }
  static constexpr int VectorsAtOnce(int m) { return m >= 4 ? 2 : 4; }

  static float First(F x) { return _mm256_cvtss_f32(x); }
  static F Difference(U x, int32_t b) { return _mm256_cvtepi32_ps(_mm256_sub_epi32(x, _mm256_set1_epi32(b))); }
  static F SelectInRange(U x, int32_t low, int32_t high, F a, F b) {
    const U outside =
        _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(low), x), _mm256_cmpgt_epi32(x, _mm256_set1_epi32(high)));
    return _mm256_blendv_ps(a, b, AsF(outside));
  }
  static F ScaleOrZero(F p, F n, F x) {
    // A NaN's n converts to INT32_MIN, which the shift makes 0: it stays a NaN.
    const U exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    const F scaled = AsF(_mm256_add_epi32(AsU(p), exponent));
    return _mm256_and_ps(scaled, _mm256_cmp_ps(x, _mm256_set1_ps(-125.0f), _CMP_NLT_UQ));
  }
  static U LoadI8Pairs(const std::byte* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static U LoadU8Pairs(const std::byte* p) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static U LowCodes(U bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi32(0x000f000f)); }
  static U HighCodes(U bytes) { return _mm256_srli_epi16(bytes, 4); }
  using I = int32_t __attribute__((vector_size(32)));
  static I DotPairs(I acc, U a, U b) { return acc + reinterpret_cast<I>(_mm256_madd_epi16(a, b)); }
  static F ToFloats(I x) { return _mm256_cvtepi32_ps(reinterpret_cast<__m256i>(x)); }
  static void StoreWords(void* p, F x) {
    const U ints = _mm256_cvtps_epi32(x);
    _mm_storeu_si128(static_cast<__m128i*>(p),
                     _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1)));
  }
  using Bf16 = simd::KvBf16<Vec>;
  using F16 = simd::KvF16<Vec>;
};

}  // namespace

constinit const AttentionKernels kAttentionKernels = simd::MakeAttentionKernels<AttentionVec>();

}  // namespace kvasir::avx2
