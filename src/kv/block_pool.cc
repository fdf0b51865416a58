#include "kv/block_pool.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "base/checked.h"
#include "base/limits.h"

namespace kvasir {
namespace {

/// Slabs double up to this size.
constexpr int64_t kLargestSlab = int64_t{64} << 20;

}  // namespace

BlockPool::BlockPool(int64_t block_bytes, int64_t first_blocks, int64_t most_blocks)
    : block_bytes_(block_bytes), most_blocks_(most_blocks), next_slab_(std::max<int64_t>(first_blocks, 1)) {}

Status BlockPool::Grow(int64_t blocks) {
  const auto bytes = CheckedMul(blocks, block_bytes_);
  const int64_t available = AvailableMemory();
  const auto total = static_cast<int64_t>(blocks_.size());
  if (!bytes || *bytes > available || total > std::numeric_limits<BlockId>::max() - blocks) {
    return ResourceExhausted(
        "KV cache: {} blocks of {} bytes more do not fit the {} bytes of free memory; allow fewer tokens or sequences",
        blocks, block_bytes_, available);
  }
  ASSIGN_OR_RETURN(Buffer slab, Buffer::Allocate(*bytes, MemoryOwner::kKvCache));
  try {
    blocks_.reserve(std::max(blocks_.size() + static_cast<size_t>(blocks), blocks_.capacity()));
    free_.reserve(blocks_.capacity());  // Release must not fail
    slabs_.push_back(std::move(slab));
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("KV cache: no memory for the table of {} blocks", total + blocks);
  }
  std::byte* data = slabs_.back().data();
  for (int64_t i = 0; i < blocks; ++i) blocks_.push_back({data + i * block_bytes_, 0, true});
  // The first of the slab is taken first: sequences lie in memory in the order in which they grow.
  free_.insert(free_.begin(), static_cast<size_t>(blocks), 0);
  for (int64_t i = 0; i < blocks; ++i) free_[static_cast<size_t>(i)] = static_cast<BlockId>(total + blocks - 1 - i);
  next_slab_ = std::min(total + blocks, std::max<int64_t>(kLargestSlab / block_bytes_, 1));
  return OkStatus();
}

Status BlockPool::Prepare(int64_t blocks) {
  const int64_t missing = blocks - static_cast<int64_t>(free_.size());
  if (missing <= 0) return OkStatus();
  if (fixed_) {
    return ResourceExhausted("KV cache: {} blocks wanted, {} of the pool's {} are free", blocks, free_.size(),
                             blocks_.size());
  }
  const int64_t slab = std::min(next_slab_, most_blocks_ - static_cast<int64_t>(blocks_.size()));
  if (missing < slab && Grow(slab).ok()) return OkStatus();
  return Grow(missing);
}

Status BlockPool::AllocateAll(int64_t blocks) {
  KVASIR_CHECK(blocks_.empty());
  RETURN_IF_ERROR(Grow(blocks));
  fixed_ = true;
  return OkStatus();
}

Result<BlockId> BlockPool::Allocate() {
  RETURN_IF_ERROR(Prepare(1));
  const BlockId id = free_.back();
  free_.pop_back();
  Block& block = blocks_[static_cast<size_t>(id)];
  if (!block.clean) std::memset(block.data, 0, static_cast<size_t>(block_bytes_));
  block.clean = true;
  block.references = 1;
  return id;
}

void BlockPool::AddReference(BlockId id) {
  KVASIR_CHECK(references(id) > 0);
  ++blocks_[static_cast<size_t>(id)].references;
}

void BlockPool::Release(BlockId id, bool written) {
  Block& block = blocks_[static_cast<size_t>(id)];
  KVASIR_CHECK(block.references > 0);
  if (written) block.clean = false;
  if (--block.references == 0) free_.push_back(id);
}

}  // namespace kvasir
