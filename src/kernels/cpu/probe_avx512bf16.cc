// Measuring loops for AVX-512 with VNNI and BF16.
#include "kernels/cpu/probe_vec_avx512.h"

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

}  // namespace

constinit const ProbeKernels kProbeKernels = avx512::MakeProbeKernels(&Bf16Peak);

}  // namespace kvasir::avx512bf16
