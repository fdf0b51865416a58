// Blocks of sequences that were taken out of the cache, kept in ordinary memory.
#pragma once

#include <cstdint>

#include "base/buffer.h"
#include "kv/cache.h"

namespace kvasir {

/// What a cache held of one sequence's committed tokens.
struct SwappedBlocks {
  Buffer bytes;  // block by block, of each all layers
  int64_t tokens = 0;
};

/// Copies sequences out of a cache and back, so that nothing is run again. No more than `most_bytes` are kept at once.
/// Not thread-safe.
class BlockSwap {
 public:
  /// REQUIRES: a cache whose slots are positions, of so many layers. It outlives the swap.
  BlockSwap(KvCache& cache, int64_t layers, int64_t most_bytes);

  /// Copies what has been committed of a sequence. False: that is nothing, or more than there is room for.
  bool Out(SeqId seq, SwappedBlocks& kept);

  /// Brings the tokens that `seq`, new or with whole blocks of the same text, does not have yet. False: the cache has
  /// no room, and nothing changed.
  bool In(SeqId seq, const SwappedBlocks& kept);

  /// Forgets what was kept; nothing happens where there is nothing.
  void Drop(SwappedBlocks& kept);

  int64_t bytes() const { return bytes_; }          // kept now
  int64_t out_bytes() const { return out_bytes_; }  // so far
  int64_t in_bytes() const { return in_bytes_; }

 private:
  KvCache& cache_;
  int64_t layers_;
  int64_t most_bytes_;
  int64_t block_bytes_ = 0;  // of all layers
  int64_t bytes_ = 0;
  int64_t out_bytes_ = 0;
  int64_t in_bytes_ = 0;
};

}  // namespace kvasir
