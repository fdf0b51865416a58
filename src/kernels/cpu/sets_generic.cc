// The kernel sets of architectures without kernels of their own.
#include "base/cpu.h"
#include "kernels/kernel_set.h"

namespace kvasir {
namespace {

constexpr KernelSet kRef = {
    .name = "ref",
    .accepts = [](const CpuFeatures&) { return true; },
    .matmul = &ref::kMatMulKernels,
    .rows = &ref::kRowKernels,
    .pack = &ref::kPackKernels,
    .probes = &ref::kProbeKernels,
    .attention = &ref::kAttentionKernels,
};

constexpr const KernelSet* kSets[] = {&kRef};

}  // namespace

KernelSetList CompiledKernelSets() { return {kSets, 1}; }

}  // namespace kvasir
