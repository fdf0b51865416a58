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
  if (args.tree != nullptr && (kv.positions != nullptr || args.tree->words < (args.q.rows + 63) / 64)) {
    return InvalidArgument("[attention] a tree of {} tokens with {}", args.q.rows,
                           kv.positions != nullptr ? "slots that have positions" : "too few words of ancestors");
  }
  if (args.tree != nullptr && args.first_slot + args.q.rows != kv.length) {
    return InvalidArgument(
        "[attention] a tree of {} tokens from slot {} on in a view of {} slots, with slots behind it", args.q.rows,
        args.first_slot, kv.length);
  }
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  for (const int64_t distance : {args.min_distance, args.stride, args.local}) {
    if (distance < 0 || distance > kMost) {
      return InvalidArgument("[attention] a least distance of {}, a stride of {} and {} local; 0 to {} are possible",
                             args.min_distance, args.stride, args.local, kMost);
    }
  }
  return OkStatus();
}

namespace {

/// Keys from position `low` on that a token at `own` sees.
int64_t CountSeen(const AttentionArgs& args, int64_t own, int64_t low) {
  if (args.window > 0) low = std::max(low, own - args.window + 1);
  const int64_t farthest = own - low;
  if (args.stride <= 1) return std::max<int64_t>(farthest - args.min_distance + 1, 0);
  const int64_t local = std::min(args.local, farthest);
  // Multiples of the stride up to the farthest, without those up to the last distance that is counted already.
  const int64_t counted = std::max(local, args.min_distance - 1);
  const int64_t multiples = farthest > counted ? farthest / args.stride - counted / args.stride : 0;
  return std::max<int64_t>(local - args.min_distance + 1, 0) + multiples;
}

}  // namespace

void CountAttention(const AttentionArgs& args, OpCounters* counters) {
  const KvView& kv = args.kv;
  const int64_t tokens = args.q.rows;
  if (tokens == 0) return;
  // Where slots have positions of their own they are nearly all taken, and the rows are the last of them.
  const int64_t end_seen = kv.positions == nullptr ? args.first_slot + tokens : kv.length;
  int64_t pairs = 0;
  for (int64_t own = end_seen - tokens; own < end_seen; ++own) {
    // On a token's path there is one token at each position.
    const int64_t position = args.tree != nullptr ? args.tree->positions[own - args.first_slot] : own;
    pairs += CountSeen(args, position, kv.first_valid);
  }
  const bool in_order = kv.positions == nullptr && args.window > 0;
  const int64_t first_seen = std::max(kv.first_valid, in_order ? args.first_slot - args.window + 1 : 0);
  counters->attention_flops += pairs * args.n_heads * kv.head_dim * 4;
  // Patterns of a stride leave slots out that no row sees.
  const int64_t slots = std::clamp<int64_t>(end_seen - first_seen, 0, args.stride > 1 ? pairs : kv.length);
  counters->kv_bytes += slots * kv.kv_heads * KvTokenBytes(kv.type, kv.head_dim);
}

}  // namespace kvasir
