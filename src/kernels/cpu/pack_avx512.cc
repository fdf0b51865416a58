// Packing for AVX-512.
#include "kernels/cpu/pack_impl.h"
#include "kernels/cpu/vec_avx512.h"

namespace kvasir::avx512 {

constinit const PackKernels kPackKernels = simd::MakePackKernels<Vec>();

}  // namespace kvasir::avx512
