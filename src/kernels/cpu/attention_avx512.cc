// Attention for AVX-512.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/attention_vec_avx512.h"

namespace kvasir::avx512 {
namespace {

struct WideVec : AttentionVec {
  using Bf16 = simd::KvBf16<Vec>;
};

}  // namespace

constinit const AttentionKernels kAttentionKernels = simd::MakeAttentionKernels<WideVec>();

}  // namespace kvasir::avx512
