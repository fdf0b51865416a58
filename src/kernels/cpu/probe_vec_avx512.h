// Measuring loops for AVX-512 with VNNI, and with a loop for BF16 where there is one.
#pragma once

#include "kernels/cpu/probe_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {
namespace {  // as Vec

int64_t Int8Peak(int64_t rounds, float* sink) noexcept {
  const float seed = *sink;
  const __m512i a = _mm512_set1_epi32(1);
  simd::RunChains<Vec, 24>(
      rounds, sink, [seed](int i) { return _mm512_set1_ps(seed + static_cast<float>(i)); },
      [a](__m512 acc) { return Vec::AsF(_mm512_dpbusd_epi32(Vec::AsU(acc), a, a)); });
  return rounds * 24 * 128;
}

constexpr ProbeKernels MakeProbeKernels(int64_t (*bf16)(int64_t rounds, float* sink) noexcept) {
  return {.read = &simd::Read<Vec>,
          .read_patterns = simd::kReadPatterns,
          .fp32 = &simd::Fp32Peak<Vec, 24>,
          .bf16 = bf16,
          .int8 = &Int8Peak};
}

}  // namespace
}  // namespace kvasir::avx512
