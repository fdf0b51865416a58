// Caches of bounded length: window attention and attention sinks.
#pragma once

#include <memory>

#include "base/status.h"
#include "kv/cache.h"

namespace kvasir {

/// A cache that keeps config.bound.tokens tokens of a sequence, the first config.bound.sinks of them for ever (kSink:
/// StreamingLLM, Xiao et al. 2023, arXiv:2309.17453; kWindow: without sinks). InvalidArgument for bounds that hold
/// nothing or, with sinks, nothing behind them.
///
/// Sinks take the first slots, the other slots are a ring: the token at position p is in slot
/// sinks + (p - sinks) mod (tokens - sinks). Until tokens are dropped that is slot p, as in the dynamic cache, and so
/// are views and results.
///
/// Positions are counted inside the cache: the token kept as number i is at position i. Attention with rotated keys
/// depends on differences alone, so rolling keys stay as they were written and only the sinks move, to the positions
/// just before the oldest rolling token (MovedSinks, SinkKeys); the views' positions are those inside the cache. A
/// window without sinks keeps the positions of the text.
Result<std::unique_ptr<KvCache>> MakeRingCache(CacheKind kind, const KvCacheConfig& config);

}  // namespace kvasir
