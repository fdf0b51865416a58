// Measuring loops for AVX2 with FMA.
#include "kernels/cpu/probe_impl.h"
#include "kernels/cpu/vec_avx2.h"

namespace kvasir::avx2 {
namespace {

/// Bytes multiplied and added into dwords by way of 16-bit words, as products without VNNI are formed.
int64_t Int8Peak(int64_t rounds, float* sink) noexcept {
  const float seed = *sink;
  const __m256i a = _mm256_set1_epi32(1);
  const __m256i ones = _mm256_set1_epi16(1);
  simd::RunChains<Vec, 12>(
      rounds, sink, [seed](int i) { return _mm256_set1_ps(seed + static_cast<float>(i)); },
      [a, ones](__m256 acc) {
        const __m256i words = _mm256_maddubs_epi16(Vec::AsU(acc), a);
        return Vec::AsF(_mm256_add_epi32(Vec::AsU(acc), _mm256_madd_epi16(words, ones)));
      });
  return rounds * 12 * 64;
}

}  // namespace

constinit const ProbeKernels kProbeKernels = {
    .read = &simd::Read<Vec>,
    .read_patterns = simd::kReadPatterns,
    .fp32 = &simd::Fp32Peak<Vec, 12>,
    .bf16 = nullptr,
    .int8 = &Int8Peak,
};

}  // namespace kvasir::avx2
