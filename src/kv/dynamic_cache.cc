#include "kv/dynamic_cache.h"

#include <algorithm>

namespace kvasir {

Result<std::unique_ptr<KvCache>> DynamicCache::Make(const KvCacheConfig& config) {
  std::unique_ptr<DynamicCache> cache(new DynamicCache(config));
  RETURN_IF_ERROR(cache->Init(config));
  return std::unique_ptr<KvCache>(std::move(cache));
}

int64_t DynamicCache::FreshBlocks(const Sequence& sequence, int64_t end) const {
  const auto have = static_cast<int64_t>(sequence.tables[0].ids.size());
  const int64_t needed = BlocksFor(end);
  int64_t fresh = std::max<int64_t>(needed - have, 0);
  if (end == sequence.length) return fresh;
  for (int64_t block = sequence.length / block_slots(); block < std::min(have, needed); ++block) {
    fresh += IsShared(sequence, block);
  }
  return fresh;
}

bool DynamicCache::Reserve(SeqId seq, int64_t tokens) {
  Sequence& sequence = At(seq);
  KVASIR_CHECK(tokens >= 0);
  if (tokens > max_tokens_ - sequence.length) return false;
  const int64_t end = sequence.length + tokens;
  const auto have = static_cast<int64_t>(sequence.tables[0].ids.size());
  const int64_t needed = BlocksFor(end);
  if (!MakeRoom(sequence, FreshBlocks(sequence, end))) return false;
  // Counted again: what made room may have left the sequence alone with a block.
  if (!Prepare(sequence, FreshBlocks(sequence, end), needed).ok()) return false;

  for (int64_t block = sequence.length / block_slots(); tokens > 0 && block < std::min(have, needed); ++block) {
    if (IsShared(sequence, block)) CopyBlock(sequence, block);
  }
  GrowTo(sequence, needed);
  // Those of a larger reservation before: others may need them.
  ShrinkTo(sequence, needed);
  SetReserved(sequence, tokens);
  return true;
}

void DynamicCache::Commit(SeqId seq, int64_t tokens) {
  BlockCache::Commit(seq, tokens);
  Sequence& sequence = At(seq);
  ShrinkTo(sequence, BlocksFor(sequence.length));
}

bool DynamicCache::Truncate(SeqId seq, int64_t length) {
  Sequence& sequence = At(seq);
  KVASIR_CHECK(length >= 0 && length <= sequence.length);
  ShrinkTo(sequence, BlocksFor(length));
  Cut(sequence, length);
  return true;
}

int64_t DynamicCache::BytesFor(int64_t tokens) const { return BytesOfBlocks(BlocksFor(std::max<int64_t>(tokens, 0))); }

}  // namespace kvasir
