// Matrix products for AVX2 with FMA and F16C.
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/vec_avx2.h"

namespace kvasir::avx2 {

// 12 of the 16 registers are sums; fp16 keeps more of a widened line at once, so it has 10.
constinit const MatMulKernels kMatMulKernels = {
    .formats = {simd::MakeFormatKernels<Vec, simd::F32Format<Vec>, 6, 3>(),
                simd::MakeFormatKernels<Vec, simd::F16Format<Vec>, 5, 2>(),
                simd::MakeFormatKernels<Vec, simd::BF16Format<Vec>, 6, 3>()},
    .finish = &simd::Finish<Vec>,
};

}  // namespace kvasir::avx2
