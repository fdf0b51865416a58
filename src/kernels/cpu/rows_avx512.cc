// Row-wise operations for AVX-512.
#include "kernels/cpu/rows_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {

constinit const RowKernels kRowKernels = simd::MakeRowKernels<Vec>();

}  // namespace kvasir::avx512
