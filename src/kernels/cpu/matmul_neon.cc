// Matrix products for NEON.
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/vec_neon.h"

namespace kvasir::neon {
namespace {

// 24 of the 32 registers are sums of 6 tokens × 4 quarters of a panel; fp16 keeps more of a widened line at once.
constexpr FormatKernels kF16 = simd::MakeWidenedKernels<Vec, simd::F16Format<Vec>, 5, 2>(&kF32Kernels);
constexpr FormatKernels kBF16 = simd::MakeWidenedKernels<Vec, simd::BF16Format<Vec>, 6, 3>(&kF32Kernels);

}  // namespace

constinit const FormatKernels kF32Kernels = simd::MakeFormatKernels<Vec, simd::F32Format<Vec>, 6, 3>();

constinit const MatMulKernels kMatMulKernels =
    simd::MakeMatMulKernels(&kF32Kernels, &kF16, &kBF16, kQuantKernels, &simd::Finish<Vec>);

}  // namespace kvasir::neon
