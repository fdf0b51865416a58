// Packing for NEON.
#include "kernels/cpu/pack_impl.h"
#include "kernels/cpu/vec_neon.h"

namespace kvasir::neon {

constinit const PackKernels kPackKernels = simd::MakePackKernels<Vec>();

}  // namespace kvasir::neon
