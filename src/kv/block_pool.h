// Equal blocks of memory with reference counts: what every cache policy stores its tiles in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"

namespace kvasir {

using BlockId = int32_t;

/// Hands out zeroed, 64-byte-aligned blocks of one size. Blocks live in slabs that grow with the pool, so that large
/// caches get huge pages, nothing ever moves, and growing costs amortised constant time. Memory of freed blocks is kept
/// for the next ones. A pool may also be made whole at once and then never grows. Not thread-safe.
class BlockPool {
 public:
  /// block_bytes: a multiple of 64. first_blocks: blocks of the first slab. most_blocks: that will ever be in use;
  /// slabs take no more in advance.
  BlockPool(int64_t block_bytes, int64_t first_blocks, int64_t most_blocks = std::numeric_limits<int64_t>::max());

  /// A zeroed block with one reference. ResourceExhausted when there is no memory for it.
  Result<BlockId> Allocate();
  /// Makes sure that the next `blocks` calls of Allocate succeed.
  Status Prepare(int64_t blocks);
  /// Allocates `blocks` blocks, which from then on are all that there are. REQUIRES: none has been allocated yet.
  Status AllocateAll(int64_t blocks);

  void AddReference(BlockId id);
  /// Gives up one reference. `written`: whether the block's bytes may differ from zero.
  void Release(BlockId id, bool written = true);
  int32_t references(BlockId id) const { return blocks_[static_cast<size_t>(id)].references; }

  std::byte* data(BlockId id) const { return blocks_[static_cast<size_t>(id)].data; }
  int64_t block_bytes() const { return block_bytes_; }
  /// Blocks that there are, with references or without.
  int64_t blocks() const { return static_cast<int64_t>(blocks_.size()); }
  /// Blocks with references.
  int64_t in_use() const { return static_cast<int64_t>(blocks_.size() - free_.size()); }

 private:
  struct Block {
    std::byte* data = nullptr;
    int32_t references = 0;
    bool clean = true;  // all zero
  };
  Status Grow(int64_t blocks);

  int64_t block_bytes_;
  int64_t most_blocks_;
  int64_t next_slab_;  // blocks
  bool fixed_ = false;
  std::vector<Buffer> slabs_;
  std::vector<Block> blocks_;
  std::vector<BlockId> free_;  // taken from the back
};

}  // namespace kvasir
