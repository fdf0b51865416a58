// Packing for AVX2.
#include "kernels/cpu/pack_impl.h"
#include "kernels/cpu/vec_avx2.h"

namespace kvasir::avx2 {

constinit const PackKernels kPackKernels = simd::MakePackKernels<Vec>();

}  // namespace kvasir::avx2
