// Matrix products for AVX-512.
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {

constinit const FormatKernels kF32Kernels = simd::MakeFormatKernels<Vec, simd::F32Format<Vec>, 12, 12>();

// 24 of the 32 registers are sums; 16-bit types need two more per panel for the widened weights.
constinit const FormatKernels kF16Kernels = simd::MakeWidenedKernels<Vec, simd::F16Format<Vec>, 12, 12>(&kF32Kernels);

namespace {

constexpr FormatKernels kBF16 = simd::MakeWidenedKernels<Vec, simd::BF16Format<Vec>, 12, 12>(&kF32Kernels);

}  // namespace

constinit const MatMulKernels kMatMulKernels =
    simd::MakeMatMulKernels(&kF32Kernels, &kF16Kernels, &kBF16, kQuantKernels, &simd::Finish<Vec>);

}  // namespace kvasir::avx512
