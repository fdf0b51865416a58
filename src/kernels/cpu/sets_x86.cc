// The kernel sets of x86-64.
#include "base/cpu.h"
#include "kernels/kernel_set.h"

namespace kvasir {
namespace {

constexpr KernelSet kAvx512Bf16 = {
    .name = "avx512bf16",
    .accepts = [](const CpuFeatures& cpu) { return cpu.avx2 && cpu.avx512 && cpu.avx512_vnni && cpu.avx512_bf16; },
    .matmul = &avx512bf16::kMatMulKernels,
    .rows = &avx512::kRowKernels,
    .pack = &avx512::kPackKernels,
    .probes = &avx512bf16::kProbeKernels,
    .attention = &avx512bf16::kAttentionKernels,
};

constexpr KernelSet kAvx512 = {
    .name = "avx512",
    .accepts = [](const CpuFeatures& cpu) { return cpu.avx2 && cpu.avx512 && cpu.avx512_vnni; },
    .matmul = &avx512::kMatMulKernels,
    .rows = &avx512::kRowKernels,
    .pack = &avx512::kPackKernels,
    .probes = &avx512::kProbeKernels,
    .attention = &avx512::kAttentionKernels,
};

constexpr KernelSet kAvx2 = {
    .name = "avx2",
    .accepts = [](const CpuFeatures& cpu) { return cpu.avx2; },
    .matmul = &avx2::kMatMulKernels,
    .rows = &avx2::kRowKernels,
    .pack = &avx2::kPackKernels,
    .probes = &avx2::kProbeKernels,
    .attention = &avx2::kAttentionKernels,
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

constexpr const KernelSet* kSets[] = {&kAvx512Bf16, &kAvx512, &kAvx2, &kRef};
// Intel's cores make half as many products by vdpbf16ps as by fp32's multiply-add.
constexpr const KernelSet* kSetsOfSlowBf16[] = {&kAvx512, &kAvx512Bf16, &kAvx2, &kRef};

}  // namespace

KernelSetList CompiledKernelSets() { return {GetCpuFeatures().intel ? kSetsOfSlowBf16 : kSets, 4}; }

}  // namespace kvasir
