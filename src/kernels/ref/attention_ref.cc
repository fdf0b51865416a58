// The attention kernels in plain code: one row at a time, one chunk at a time. The same steps as cpu/attention_impl.h,
// rounded where the cache's type rounds, and short enough to be checked by reading.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention_kernels.h"
#include "kernels/kernel_set.h"
#include "kernels/ref/attention_score.h"

namespace kvasir::ref {
namespace {

/// One row through one chunk: weights (of the chunk's slots) is scratch.
void AttendRow(const AttentionTask& task, int64_t row, int64_t chunk, float* weights, float* acc, float* max,
               float* sum) {
  const AttentionArgs& args = *task.args;
  const KvView& kv = args.kv;
  const int64_t group = args.n_heads / kv.kv_heads;
  const int64_t token = row / group;
  const int64_t query_head = task.head * group + row % group;
  const float* q = args.q.row(token) + query_head * kv.head_dim;
  const int64_t begin = std::max(chunk * kChunkSlots, kv.first_valid);
  const int64_t end = std::min((chunk + 1) * kChunkSlots, kv.length);

  *max = -std::numeric_limits<float>::infinity();
  for (int64_t slot = begin; slot < end; ++slot) {
    if (!Sees(args, token, slot)) continue;
    float dot = 0.0f;
    for (int64_t i = 0; i < kv.head_dim; ++i) {
      const float x = kv.type == KvType::kBF16 ? ToFloat(ToBFloat16(q[i])) : q[i];
      dot = std::fma(x, KeyAt(kv, task.head, slot, i), dot);
    }
    const float logit = Logit(args, query_head, token, slot, dot);
    weights[slot - begin] = logit;
    if (!(logit <= *max)) *max = logit;  // a NaN stays and reaches the sum
  }
  *sum = 0.0f;
  std::fill(acc, acc + kv.head_dim, 0.0f);
  if (*max == -std::numeric_limits<float>::infinity()) *max = 0.0f;
  for (int64_t slot = begin; slot < end; ++slot) {
    if (!Sees(args, token, slot)) continue;
    const float p = std::exp(weights[slot - begin] - *max);
    *sum += p;
    const float rounded = kv.type == KvType::kBF16 ? ToFloat(ToBFloat16(p)) : p;
    for (int64_t i = 0; i < kv.head_dim; ++i) acc[i] = std::fma(rounded, ValueAt(kv, task.head, slot, i), acc[i]);
  }
}

void MergeRow(float max, float sum, const float* acc, int64_t width, float* into_max, float* into_sum,
              float* into_acc) {
  if (sum == 0.0f) return;
  if (*into_sum == 0.0f) {
    *into_max = max;
    *into_sum = sum;
    std::copy(acc, acc + width, into_acc);
    return;
  }
  const float top = std::max(max, *into_max);
  const float a = std::exp(*into_max - top);
  const float b = std::exp(max - top);
  *into_max = top;
  *into_sum = *into_sum * a + sum * b;
  for (int64_t i = 0; i < width; ++i) into_acc[i] = into_acc[i] * a + acc[i] * b;
}

void Attend(const AttentionTask& task, int64_t chunk_begin, int64_t chunk_end, float* scratch,
            const AttentionState& state, int64_t state_step) noexcept {
  float* weights = scratch;
  float* acc = scratch + kChunkSlots;
  const int64_t head_dim = task.args->kv.head_dim;
  for (int64_t chunk = chunk_begin; chunk < chunk_end; ++chunk) {
    const int64_t skip = (chunk - chunk_begin) * state_step;
    for (int32_t r = 0; r < task.rows; ++r) {
      float max;
      float sum;
      AttendRow(task, task.row_begin + r, chunk, weights, acc, &max, &sum);
      MergeRow(max, sum, acc, head_dim, state.max + skip + r, state.sum + skip + r,
               state.acc + skip + r * state.stride);
    }
  }
}

void Merge(const AttentionState& from, int32_t rows, const AttentionState& into) noexcept {
  for (int32_t r = 0; r < rows; ++r) {
    MergeRow(from.max[r], from.sum[r], from.acc + r * from.stride, from.stride, into.max + r, into.sum + r,
             into.acc + r * into.stride);
  }
}

void Store(const AttentionTask& task, const AttentionState& state) noexcept {
  const AttentionArgs& args = *task.args;
  const int64_t head_dim = args.kv.head_dim;
  const int64_t group = args.n_heads / args.kv.kv_heads;
  for (int32_t r = 0; r < task.rows; ++r) {
    const int64_t row = task.row_begin + r;
    float* out = args.out.row(row / group) + (task.head * group + row % group) * head_dim;
    const float sum = state.sum[r];
    for (int64_t i = 0; i < head_dim; ++i) out[i] = sum == 0.0f ? 0.0f : state.acc[r * state.stride + i] / sum;
  }
}

}  // namespace

constinit const AttentionKernels kAttentionKernels = {.attend = Attend, .merge = Merge, .store = Store};

}  // namespace kvasir::ref
