// Attention by materialised scores: the definition, for tests and for showing what the tiled kernel saves.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention_check.h"
#include "kernels/ops.h"
#include "kernels/ref/attention_score.h"

namespace kvasir {
namespace {

/// A sequence's keys and values as fp32, once for all query rows: [kv_heads, slots from first_valid on, head_dim].
struct Unpacked {
  float* k = nullptr;
  float* v = nullptr;
};

void UnpackSlot(const KvView& kv, int64_t head, int64_t slot, const Unpacked& out) {
  const int64_t slots = kv.length - kv.first_valid;
  const int64_t at = (head * slots + slot - kv.first_valid) * kv.head_dim;
  for (int64_t i = 0; i < kv.head_dim; ++i) {
    out.k[at + i] = ref::KeyAt(kv, head, slot, i);
    out.v[at + i] = ref::ValueAt(kv, head, slot, i);
  }
}

/// Four partial sums, so that additions need not wait for each other.
float Dot(const float* a, const float* b, int64_t n) {
  float sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int64_t j = 0; j < 4; ++j) sums[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// One query row's softmax over all slots, times the sum that it returns: p[j] is 0 for slots that the row does not
/// see, and the sum is 0 where it sees nothing. k: of the row's KV head, [slots, head_dim]; p: [slots].
float SoftmaxRow(const AttentionArgs& args, const float* k, int64_t token, int64_t query_head, float* p) {
  const KvView& kv = args.kv;
  const int64_t d = kv.head_dim;
  const int64_t slots = kv.length - kv.first_valid;
  const float* q = args.q.row(token) + query_head * d;
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  float max = kMinusInfinity;
  for (int64_t j = 0; j < slots; ++j) {
    p[j] = kMinusInfinity;
    if (!ref::Sees(args, token, kv.first_valid + j)) continue;
    p[j] = ref::Logit(args, query_head, token, kv.first_valid + j, Dot(q, k + j * d, d));
    if (!(p[j] <= max)) max = p[j];
  }
  float sum = 0.0f;
  for (int64_t j = 0; j < slots; ++j) {
    p[j] = p[j] == kMinusInfinity ? 0.0f : std::exp(p[j] - max);
    sum += p[j];
  }
  return sum;
}

/// One query row over all slots. p: [slots].
void AttendRow(const AttentionArgs& args, const Unpacked& unpacked, int64_t token, int64_t query_head, float* p) {
  const KvView& kv = args.kv;
  const int64_t d = kv.head_dim;
  const int64_t slots = kv.length - kv.first_valid;
  const int64_t head = query_head / (args.n_heads / kv.kv_heads);
  const float* v = unpacked.v + head * slots * d;
  float* out = args.out.row(token) + query_head * d;
  const float sum = SoftmaxRow(args, unpacked.k + head * slots * d, token, query_head, p);
  std::fill(out, out + d, 0.0f);
  if (sum == 0.0f) return;
  for (int64_t j = 0; j < slots; ++j) {
    if (p[j] == 0.0f) continue;
    for (int64_t i = 0; i < d; ++i) out[i] += p[j] * v[j * d + i];
  }
  for (int64_t i = 0; i < d; ++i) out[i] /= sum;
}

Status AttendSequence(ExecContext& ctx, const AttentionArgs& args) {
  const KvView& kv = args.kv;
  const int64_t slots = std::max<int64_t>(kv.length - kv.first_valid, 0);
  const int64_t rows = args.q.rows * args.n_heads;
  // All scores at once, as the definition has them: this is what the tiled kernel never does.
  ASSIGN_OR_RETURN(float* scores, ctx.scratch->Allocate<float>(rows * slots));
  Unpacked unpacked;
  ASSIGN_OR_RETURN(unpacked.k, ctx.scratch->Allocate<float>(kv.kv_heads * slots * kv.head_dim));
  ASSIGN_OR_RETURN(unpacked.v, ctx.scratch->Allocate<float>(kv.kv_heads * slots * kv.head_dim));
  ctx.pool->ParallelFor(kv.kv_heads * slots, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) UnpackSlot(kv, i / slots, kv.first_valid + i % slots, unpacked);
  });
  ctx.pool->ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      AttendRow(args, unpacked, row / args.n_heads, row % args.n_heads, scores + row * slots);
    }
  });
  CountAttention(args, &ctx.counters);
  return OkStatus();
}

}  // namespace

Status AttentionPlain(ExecContext& ctx, std::span<const AttentionArgs> sequences) {
  for (const AttentionArgs& args : sequences) RETURN_IF_ERROR(CheckAttentionArgs(args));
  const Arena::Mark mark = ctx.scratch->GetMark();
  for (const AttentionArgs& args : sequences) {
    const Status status = AttendSequence(ctx, args);
    ctx.scratch->Rewind(mark);
    if (!status.ok()) return status.WithContext("plain attention holds every score; the tiled kind does not");
  }
  return OkStatus();
}

Status AttentionProbabilities(ExecContext& ctx, const AttentionArgs& args, int64_t query_head, MatView<float> out) {
  RETURN_IF_ERROR(CheckAttentionArgs(args));
  const KvView& kv = args.kv;
  if (query_head < 0 || query_head >= args.n_heads) {
    return InvalidArgument("[attention] query head {} of {}", query_head, args.n_heads);
  }
  if (out.rows != args.q.rows || out.cols != kv.length) {
    return InvalidArgument("[attention] probabilities of {} rows and {} slots into [{}, {}]", args.q.rows, kv.length,
                           out.rows, out.cols);
  }
  const int64_t slots = std::max<int64_t>(kv.length - kv.first_valid, 0);
  const int64_t head = query_head / (args.n_heads / kv.kv_heads);
  const Arena::Mark mark = ctx.scratch->GetMark();
  ASSIGN_OR_RETURN(float* k, ctx.scratch->Allocate<float>(slots * kv.head_dim));
  for (int64_t j = 0; j < slots; ++j) {
    for (int64_t i = 0; i < kv.head_dim; ++i) k[j * kv.head_dim + i] = ref::KeyAt(kv, head, kv.first_valid + j, i);
  }
  ctx.pool->ParallelFor(args.q.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* p = out.row(t) + kv.length - slots;
      std::fill(out.row(t), p, 0.0f);
      const float sum = SoftmaxRow(args, k, t, query_head, p);
      for (int64_t j = 0; j < slots && sum != 0.0f; ++j) p[j] /= sum;
    }
  });
  ctx.scratch->Rewind(mark);
  return OkStatus();
}

}  // namespace kvasir
