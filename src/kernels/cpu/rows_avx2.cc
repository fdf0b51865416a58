// Row-wise operations for AVX2.
#include "kernels/cpu/rows_impl.h"
#include "kernels/cpu/vec_avx2.h"

namespace kvasir::avx2 {

constinit const RowKernels kRowKernels = simd::MakeRowKernels<Vec>();

}  // namespace kvasir::avx2
