// Matrix products for AVX2 with FMA and F16C.
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/vec_avx2.h"

namespace kvasir::avx2 {
namespace {

// 12 of the 16 registers are sums; fp16 keeps more of a widened line at once, so it has 10.
constexpr FormatKernels kF16 = simd::MakeWidenedKernels<Vec, simd::F16Format<Vec>, 5, 2>(&kF32Kernels);
constexpr FormatKernels kBF16 = simd::MakeWidenedKernels<Vec, simd::BF16Format<Vec>, 6, 3>(&kF32Kernels);

}  // namespace

constinit const FormatKernels kF32Kernels = simd::MakeFormatKernels<Vec, simd::F32Format<Vec>, 6, 3>();

constinit const MatMulKernels kMatMulKernels =
    simd::MakeMatMulKernels(&kF32Kernels, &kF16, &kBF16, kQuantKernels, &simd::Finish<Vec>);

}  // namespace kvasir::avx2
