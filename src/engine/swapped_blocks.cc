#include "engine/swapped_blocks.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"

namespace kvasir {

BlockSwap::BlockSwap(KvCache& cache, int64_t layers, int64_t most_bytes)
    : cache_(cache), layers_(layers), most_bytes_(most_bytes) {
  for (int64_t layer = 0; layer < layers; ++layer) block_bytes_ += cache.BlockBytes(static_cast<int>(layer));
}

bool BlockSwap::Out(SeqId seq, SwappedBlocks& kept) {
  const int64_t tokens = cache_.NextPosition(seq);
  const int64_t blocks = CeilDiv(tokens, cache_.BlockSlots());
  const auto bytes = CheckedMul(blocks, block_bytes_);
  if (!bytes || *bytes <= 0 || *bytes > most_bytes_ - bytes_) return false;
  auto buffer = Buffer::Allocate(*bytes, MemoryOwner::kKvCache);
  if (!buffer.ok()) return false;
  std::byte* to = buffer->data();
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t layer = 0; layer < layers_; ++layer) {
      const std::span<const std::byte> from = cache_.Block(seq, static_cast<int>(layer), block);
      to = std::ranges::copy(from, to).out;
    }
  }
  kept = {.bytes = *std::move(buffer), .tokens = tokens};
  bytes_ += *bytes;
  out_bytes_ += *bytes;
  return true;
}

bool BlockSwap::In(SeqId seq, const SwappedBlocks& kept) {
  const int64_t have = cache_.NextPosition(seq);
  if (have >= kept.tokens) return true;
  KVASIR_CHECK(have % cache_.BlockSlots() == 0);
  if (!cache_.Reserve(seq, kept.tokens - have)) return false;
  const int64_t first = have / cache_.BlockSlots();
  const int64_t blocks = CeilDiv(kept.tokens, cache_.BlockSlots());
  const std::byte* from = kept.bytes.data() + first * block_bytes_;
  for (int64_t block = first; block < blocks; ++block) {
    for (int64_t layer = 0; layer < layers_; ++layer) {
      const std::span<std::byte> to = cache_.Block(seq, static_cast<int>(layer), block);
      std::memcpy(to.data(), from, to.size());
      from += to.size();
    }
  }
  cache_.Commit(seq, kept.tokens - have);
  cache_.ClearUnused(seq);
  in_bytes_ += (blocks - first) * block_bytes_;
  return true;
}

void BlockSwap::Drop(SwappedBlocks& kept) {
  bytes_ -= kept.bytes.size();
  kept = {};
}

}  // namespace kvasir
