// Attention for AVX-512.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/attention_vec_avx512.h"

namespace kvasir::avx512 {
namespace {

struct WideVec : AttentionVec {
  static F SetPair(const float* w) {
    double pair;
    __builtin_memcpy(&pair, w, sizeof(pair));
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
  }
  using Bf16 = simd::KvBf16<Vec>;
  using F16 = simd::KvF16Pairs<WideVec>;
};

}  // namespace

constinit const AttentionKernels kAttentionKernels = simd::MakeAttentionKernels<WideVec>();

}  // namespace kvasir::avx512
