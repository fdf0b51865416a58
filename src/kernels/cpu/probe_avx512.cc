// Measuring loops for AVX-512 with VNNI.
#include "kernels/cpu/probe_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {
namespace {

int64_t Int8Peak(int64_t rounds, float* sink) noexcept {
  return simd::Int8Peak<Vec>(rounds, sink, [](auto acc, auto a, auto b) { return _mm512_dpbusd_epi32(acc, a, b); });
}

}  // namespace

constinit const ProbeKernels kProbeKernels = {
    .read = &simd::Read<Vec>,
    .read_patterns = simd::kReadPatterns,
    .fp32 = &simd::Fp32Peak<Vec, 24>,
    .bf16 = nullptr,
    .int8 = &Int8Peak,
};

}  // namespace kvasir::avx512
