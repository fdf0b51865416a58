// Measuring loops for AVX-512 with VNNI and BF16.
#include "kernels/cpu/probe_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512bf16 {
namespace {

using avx512::Vec;

int64_t Bf16Peak(int64_t rounds, float* sink) noexcept {
  const float seed = *sink;
  const __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_ps(seed));
  simd::RunChains<Vec, 24>(
      rounds, sink, [seed](int i) { return _mm512_set1_ps(seed + static_cast<float>(i)); },
      [a](__m512 acc) { return _mm512_dpbf16_ps(acc, a, a); });
  return rounds * 24 * 64;
}

int64_t Int8Peak(int64_t rounds, float* sink) noexcept {
  return simd::Int8Peak<Vec>(rounds, sink, [](auto acc, auto a, auto b) { return _mm512_dpbusd_epi32(acc, a, b); });
}

}  // namespace

constinit const ProbeKernels kProbeKernels = {
    .read = &simd::Read<Vec>,
    .read_patterns = simd::kReadPatterns,
    .fp32 = &simd::Fp32Peak<Vec, 24>,
    .bf16 = &Bf16Peak,
    .int8 = &Int8Peak,
};

}  // namespace kvasir::avx512bf16
