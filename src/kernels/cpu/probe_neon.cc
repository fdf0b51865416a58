// Measuring loops for NEON.
#include "kernels/cpu/probe_impl.h"
#include "kernels/cpu/vec_neon.h"

namespace kvasir::neon {

constinit const ProbeKernels kProbeKernels = {
    .read = &simd::Read<Vec>,
    .read_patterns = simd::kReadPatterns,
    .fp32 = &simd::Fp32Peak<Vec, 24>,
    .bf16 = nullptr,
    .int8 = nullptr,
};

}  // namespace kvasir::neon
