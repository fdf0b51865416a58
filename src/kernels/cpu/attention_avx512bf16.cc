// Attention for AVX-512 with BF16: over caches of bf16; the others are AVX-512's.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/attention_vec_avx512.h"

namespace kvasir::avx512bf16 {
namespace {

struct DotVec : avx512::AttentionVec {
  /// Queries and weights rounded to bf16, two products at a time.
  struct Bf16 {
    static constexpr int kGroup = 2;
    static constexpr int kWords = 1;
    static constexpr int kSums = 1;
    using Line = U;
    static Line Load(const std::byte* p) { return LoadU(p); }
    static Line LoadN(const std::byte* p, int n) { return LoadUN(p, n); }
    static void Add(F (&sum)[1], Line line, const float* w) {
      const auto pair = reinterpret_cast<__m512bh>(_mm512_set1_ps(*w));
      sum[0] = _mm512_dpbf16_ps(sum[0], reinterpret_cast<__m512bh>(line), pair);
    }
    static void StoreWeights(float* out, F p) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(p)));
    }
  };
};

void Attend(const AttentionTask& task, int64_t chunk_begin, int64_t chunk_end, float* scratch,
            const AttentionState& state, int64_t state_step) noexcept {
  if (task.args->kv.type != KvType::kBF16) {
    avx512::kAttentionKernels.attend(task, chunk_begin, chunk_end, scratch, state, state_step);
    return;
  }
  simd::AttentionImpl<DotVec>::AttendFormat<DotVec::Bf16>(task, chunk_begin, chunk_end, scratch, state, state_step);
}

}  // namespace

constinit const AttentionKernels kAttentionKernels = {
    .attend = &Attend, .merge = &simd::AttentionImpl<DotVec>::Merge, .store = &simd::AttentionImpl<DotVec>::StoreRows};

}  // namespace kvasir::avx512bf16
