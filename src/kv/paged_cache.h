// PagedAttention's cache: a fixed pool of blocks for all sequences, and prefixes that share them.
#pragma once

#include <memory>

#include "base/status.h"
#include "kv/cache.h"

namespace kvasir {

/// A4: keys and values in blocks of config.paged.block_tokens tokens, any of which any sequence can take, so that only
/// the last block of a sequence has empty slots (Kwon et al. 2023, arXiv:2309.06180). The pool is allocated here, in
/// one piece, and never grows: Reserve says false when it is full, and the caller preempts. Sequences and forks by
/// themselves take no block. InvalidArgument for sizes that cannot be; ResourceExhausted when there is no memory.
///
/// Whole blocks that sequences have filled are offered to others by a PrefixTree (K5). Those that nobody but the tree
/// holds are given up, the ones used longest ago first, as soon as a sequence needs blocks and none is free. Writes
/// never reach a block that the tree holds: a sequence that was cut back into one copies it first, like one that it
/// shares with a fork.
///
/// Shared keys and values are those that a run of one's own would have written, to the bit, since no result depends on
/// chunks or company. The exception is that of prefill itself: weights of K-quants that are rounded for prompts
/// (ExecContext::round_weights) give a token slightly other values in a pass of 32 and more than in a shorter one, and
/// a block holds what the pass had that filled it first. Without the rounding there is no exception.
Result<std::unique_ptr<KvCache>> MakePagedCache(const KvCacheConfig& config);

}  // namespace kvasir
