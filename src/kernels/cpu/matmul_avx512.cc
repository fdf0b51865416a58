// Matrix products for AVX-512 with BF16.
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {
namespace {

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

// 24 of the 32 registers are sums; fp16 needs two more per panel for the widened weights.
constexpr FormatKernels kF16 = simd::MakeWidenedKernels<Vec, simd::F16Format<Vec>, 12, 12>(&kF32Kernels);
constexpr FormatKernels kBF16 = simd::MakeFormatKernels<Vec, BF16Dot, 12, 12>();

}  // namespace

constinit const FormatKernels kF32Kernels = simd::MakeFormatKernels<Vec, simd::F32Format<Vec>, 12, 12>();

constinit const MatMulKernels kMatMulKernels =
    simd::MakeMatMulKernels(&kF32Kernels, &kF16, &kBF16, kQuantKernels, &simd::Finish<Vec>);

}  // namespace kvasir::avx512
