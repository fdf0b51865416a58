// Matrix products for AVX-512 with BF16: those of bf16 weights; the others are AVX-512's.
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512bf16 {
namespace {

using avx512::Vec;

/// bf16 weights times x rounded to bf16, two k at a time by vdpbf16ps.
struct BF16Dot {
  static constexpr int kSteps = 1;
  static constexpr int kFloatsPerX = 2;
  static __m512 Load(const std::byte* line, int, int) { return Vec::AsF(Vec::LoadU(line)); }
  static __m512 Broadcast(const std::byte* x) { return _mm512_set1_ps(*reinterpret_cast<const float*>(x)); }
  static __m512 MultiplyAdd(__m512 w, __m512 x, __m512 acc) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }
  static __m512i PackX(const float* p, int n) {
    const __m512 low = Vec::LoadN(p, n < 16 ? n : 16, Vec::Zero());
    const __m512 high = n > 16 ? Vec::LoadN(p + 16, n - 16, Vec::Zero()) : Vec::Zero();
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  }
};

// 24 of the 32 registers are sums.
constexpr FormatKernels kBF16 = simd::MakeFormatKernels<Vec, BF16Dot, 12, 12>();

}  // namespace

constinit const MatMulKernels kMatMulKernels = simd::MakeMatMulKernels(
    &avx512::kF32Kernels, &avx512::kF16Kernels, &kBF16, avx512::kQuantKernels, &simd::Finish<Vec>);

}  // namespace kvasir::avx512bf16
