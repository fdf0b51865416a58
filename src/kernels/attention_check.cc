#include "kernels/attention_check.h"

#include <algorithm>
#include <limits>

#include "kernels/attention_kernels.h"

namespace kvasir {

Status CheckAttentionArgs(const AttentionArgs& args) {
  const KvView& kv = args.kv;
  if (kv.head_dim < 1 || kv.head_dim > kMaxHeadDim) {
    return Unsupported("[attention] heads of {} values; 1 to {} are possible", kv.head_dim, kMaxHeadDim);
  }
  if (kv.kv_heads < 1 || args.n_heads < 1 || args.n_heads % kv.kv_heads != 0) {
    return InvalidArgument("[attention] {} query heads over {} KV heads", args.n_heads, kv.kv_heads);
  }
  const int64_t width = int64_t{args.n_heads} * kv.head_dim;
  if (args.q.rows < 0 || args.out.rows != args.q.rows || args.q.cols != width || args.out.cols != width) {
    return InvalidArgument("[attention] q is [{}, {}] and out [{}, {}], but {} heads of {} need [tokens, {}]",
                           args.q.rows, args.q.cols, args.out.rows, args.out.cols, args.n_heads, kv.head_dim, width);
  }
  if (kv.length > std::numeric_limits<int32_t>::max() - kChunkSlots) {
    return Unsupported("[attention] {} slots in one sequence", kv.length);
  }
  if (kv.block_tiles < 1 || kv.first_valid < 0 || args.first_slot < 0 || args.first_slot > kv.length - args.q.rows) {
    return InvalidArgument("[attention] {} rows from slot {} on in a view of {} slots", args.q.rows, args.first_slot,
                           kv.length);
  }
  return OkStatus();
}

void CountAttention(const AttentionArgs& args, OpCounters* counters) {
  const KvView& kv = args.kv;
  const int64_t tokens = args.q.rows;
  if (tokens == 0) return;
  int64_t pairs = 0;
  int64_t first_seen = kv.first_valid;
  int64_t end_seen = kv.length;
  if (kv.positions == nullptr) {
    end_seen = args.first_slot + tokens;
    if (args.window > 0) first_seen = std::max(first_seen, args.first_slot - args.window + 1);
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t own = args.first_slot + t;
      const int64_t low = args.window > 0 ? std::max(kv.first_valid, own - args.window + 1) : kv.first_valid;
      pairs += std::max<int64_t>(own + 1 - low, 0);
    }
  } else {
    // What the first row sees is counted, and one slot more for each that follows.
    const int64_t own = kv.positions[args.first_slot];
    for (int64_t slot = kv.first_valid; slot < kv.length; ++slot) {
      const int64_t position = kv.positions[slot];
      pairs += position >= 0 && position <= own && (args.window <= 0 || position > own - args.window);
    }
    pairs = tokens * pairs + (args.window > 0 ? 0 : tokens * (tokens - 1) / 2);
  }
  counters->attention_flops += pairs * args.n_heads * kv.head_dim * 4;
  counters->kv_bytes += std::max<int64_t>(end_seen - first_seen, 0) * kv.kv_heads * KvTokenBytes(kv.type, kv.head_dim);
}

}  // namespace kvasir
