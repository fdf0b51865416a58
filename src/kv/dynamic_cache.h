// The cache that grows with its sequences.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "kv/block_cache.h"

namespace kvasir {

/// K2: a sequence gets blocks as it grows and shares them with its forks until one of them writes.
class DynamicCache : public BlockCache {
 public:
  static Result<std::unique_ptr<KvCache>> Make(const KvCacheConfig& config);

  Result<SeqId> Create() override { return NewSequence(); }
  bool Reserve(SeqId seq, int64_t tokens) override;
  void Commit(SeqId seq, int64_t tokens) override;
  bool Truncate(SeqId seq, int64_t length) override;
  Result<SeqId> Fork(SeqId seq) override { return ForkShared(seq); }
  int64_t BytesFor(int64_t tokens) const override;
  CacheKind kind() const override { return CacheKind::kDynamic; }

 protected:
  using BlockCache::BlockCache;

  /// Called before the sequence takes `fresh` blocks in every layer. False: they cannot be had, and nothing changed.
  virtual bool MakeRoom(const Sequence&, int64_t /*fresh*/) { return true; }

 private:
  /// Blocks that slots up to `end` take: new ones, and copies of shared ones that would be written.
  int64_t FreshBlocks(const Sequence& sequence, int64_t end) const;
};

}  // namespace kvasir
