// Matrix products for NEON.
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/vec_neon.h"

namespace kvasir::neon {

// 24 of the 32 registers are sums of 6 tokens × 4 quarters of a panel; fp16 keeps more of a widened line at once.
constinit const MatMulKernels kMatMulKernels = {
    .formats = {simd::MakeFormatKernels<Vec, simd::F32Format<Vec>, 6, 3>(),
                simd::MakeFormatKernels<Vec, simd::F16Format<Vec>, 5, 2>(),
                simd::MakeFormatKernels<Vec, simd::BF16Format<Vec>, 6, 3>()},
    .finish = &simd::Finish<Vec>,
};

}  // namespace kvasir::neon
