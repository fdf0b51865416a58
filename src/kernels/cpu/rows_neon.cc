// Row-wise operations for NEON.
#include "kernels/cpu/rows_impl.h"
#include "kernels/cpu/vec_neon.h"

namespace kvasir::neon {

constinit const RowKernels kRowKernels = simd::MakeRowKernels<Vec>();

}  // namespace kvasir::neon
