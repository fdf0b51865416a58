// The kernel sets of 64-bit Arm.
#include "base/cpu.h"
#include "kernels/kernel_set.h"

namespace kvasir {
namespace {

constexpr KernelSet kNeon = {
    .name = "neon",
    .accepts = [](const CpuFeatures& cpu) { return cpu.neon; },
    .matmul = &neon::kMatMulKernels,
    .rows = &neon::kRowKernels,
    .pack = &neon::kPackKernels,
    .probes = &neon::kProbeKernels,
    .attention = &neon::kAttentionKernels,
};

constexpr KernelSet kRef = {
    .name = "ref",
    .accepts = [](const CpuFeatures&) { return true; },
    .matmul = &ref::kMatMulKernels,
    .rows = &ref::kRowKernels,
    .pack = &ref::kPackKernels,
    .probes = &ref::kProbeKernels,
    .attention = &ref::kAttentionKernels,
};

constexpr const KernelSet* kSets[] = {&kNeon, &kRef};

}  // namespace

KernelSetList CompiledKernelSets() { return {kSets, 2}; }

}  // namespace kvasir
