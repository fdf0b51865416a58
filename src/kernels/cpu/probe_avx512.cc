// Measuring loops for AVX-512 with VNNI.
#include "kernels/cpu/probe_vec_avx512.h"

namespace kvasir::avx512 {

constinit const ProbeKernels kProbeKernels = MakeProbeKernels(nullptr);

}  // namespace kvasir::avx512
