// The dynamic and the static cache.
#include "kv/cache.h"

#include <algorithm>
#include <cstring>

#include "kv/block_cache.h"

namespace kvasir {
namespace {

/// K2: a sequence gets blocks as it grows and shares them with its forks until one of them writes.
class DynamicCache final : public BlockCache {
 public:
  static Result<std::unique_ptr<KvCache>> Make(const KvCacheConfig& config) {
    std::unique_ptr<DynamicCache> cache(new DynamicCache(config));
    RETURN_IF_ERROR(cache->Init(config));
    return std::unique_ptr<KvCache>(std::move(cache));
  }

  Result<SeqId> Create() override { return NewSequence(); }

  bool Reserve(SeqId seq, int64_t tokens) override {
    Sequence& sequence = At(seq);
    KVASIR_CHECK(tokens >= 0);
    if (tokens > max_tokens_ - sequence.length) return false;
    const int64_t end = sequence.length + tokens;
    const auto have = static_cast<int64_t>(sequence.tables[0].ids.size());
    const int64_t needed = BlocksFor(end);
    const int64_t first_written = sequence.length / block_slots();
    int64_t shared = 0;  // most shared blocks of a layer that would be written
    for (int64_t block = first_written; block < std::min(have, needed); ++block) shared += IsShared(sequence, block);
    if (!Prepare(sequence, std::max<int64_t>(needed - have, 0) + shared, needed).ok()) return false;

    for (int64_t block = first_written; block < std::min(have, needed); ++block) {
      if (IsShared(sequence, block)) CopyBlock(sequence, block);
    }
    GrowTo(sequence, needed);
    SetReserved(sequence, tokens);
    return true;
  }

  void Truncate(SeqId seq, int64_t length) override {
    Sequence& sequence = At(seq);
    KVASIR_CHECK(length >= 0 && length <= sequence.length);
    ShrinkTo(sequence, BlocksFor(length));
    Cut(sequence, length);
  }

  /// The reservation of the source ends, since it would write into blocks that are shared from now on.
  Result<SeqId> Fork(SeqId seq) override {
    ASSIGN_OR_RETURN(const SeqId fork, NewSequence());
    Commit(seq, 0);
    const Sequence& source = At(seq);
    Sequence& copy = At(fork);
    copy.length = source.length;
    copy.high_water = source.high_water;
    copy.stale_end = source.stale_end;
    const auto blocks = static_cast<size_t>(BlocksFor(source.length));
    if (Status status = Prepare(copy, 0, static_cast<int64_t>(blocks)); !status.ok()) {
      Release(fork);
      return status;
    }
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Table& table = source.tables[i];
      copy.tables[i].ids.assign(table.ids.begin(), table.ids.begin() + static_cast<ptrdiff_t>(blocks));
      copy.tables[i].data.assign(table.data.begin(), table.data.begin() + static_cast<ptrdiff_t>(blocks));
      for (const BlockId id : copy.tables[i].ids) layers_[i].pool->AddReference(id);
    }
    return fork;
  }

  int64_t BytesFor(int64_t tokens) const override { return BytesOfBlocks(BlocksFor(std::max<int64_t>(tokens, 0))); }
  CacheKind kind() const override { return CacheKind::kDynamic; }

 private:
  using BlockCache::BlockCache;

  /// Blocks of all layers are shared together.
  bool IsShared(const Sequence& sequence, int64_t block) const {
    return layers_[0].pool->references(sequence.tables[0].ids[static_cast<size_t>(block)]) > 1;
  }

  /// Replaces a shared block by a copy of the sequence's own content.
  void CopyBlock(Sequence& sequence, int64_t block) {
    const int64_t kept = std::clamp<int64_t>(sequence.length - block * block_slots(), 0, block_slots());
    for (size_t i = 0; i < layers_.size(); ++i) {
      BlockPool& pool = *layers_[i].pool;
      Table& table = sequence.tables[i];
      const auto at = static_cast<size_t>(block);
      const auto id = pool.Allocate();
      KVASIR_CHECK(id.ok());
      std::memcpy(pool.data(*id), table.data[at], static_cast<size_t>(pool.block_bytes()));
      ClearValues(layers_[i].layout, pool.data(*id), kept, block_slots());
      pool.Release(table.ids[at]);
      table.ids[at] = *id;
      table.data[at] = pool.data(*id);
    }
  }
};

/// K3: a sequence has all its blocks from the start and writes in place; a fork is a copy.
class StaticCache final : public BlockCache {
 public:
  static Result<std::unique_ptr<KvCache>> Make(const KvCacheConfig& config) {
    std::unique_ptr<StaticCache> cache(new StaticCache(config));
    RETURN_IF_ERROR(cache->Init(config));
    return std::unique_ptr<KvCache>(std::move(cache));
  }

  Result<SeqId> Create() override {
    const int64_t blocks = BlocksFor(max_tokens_);
    ASSIGN_OR_RETURN(const SeqId seq, NewSequence());
    if (Status status = Prepare(At(seq), blocks, blocks); !status.ok()) {
      Release(seq);
      return status;
    }
    GrowTo(At(seq), blocks);
    return seq;
  }

  bool Reserve(SeqId seq, int64_t tokens) override {
    Sequence& sequence = At(seq);
    KVASIR_CHECK(tokens >= 0);
    if (tokens > max_tokens_ - sequence.length) return false;
    SetReserved(sequence, tokens);
    return true;
  }

  void Truncate(SeqId seq, int64_t length) override {
    Sequence& sequence = At(seq);
    KVASIR_CHECK(length >= 0 && length <= sequence.length);
    Cut(sequence, length);
  }

  Result<SeqId> Fork(SeqId seq) override {
    ASSIGN_OR_RETURN(const SeqId fork, Create());
    Commit(seq, 0);
    const Sequence& source = At(seq);
    Sequence& copy = At(fork);
    copy.length = source.length;
    copy.high_water = source.length;
    const auto blocks = static_cast<size_t>(BlocksFor(source.length));
    for (size_t i = 0; i < layers_.size(); ++i) {
      for (size_t b = 0; b < blocks; ++b) {
        std::memcpy(copy.tables[i].data[b], source.tables[i].data[b], static_cast<size_t>(layers_[i].layout.bytes));
      }
    }
    return fork;
  }

  int64_t BytesFor(int64_t) const override { return BytesOfBlocks(BlocksFor(max_tokens_)); }
  CacheKind kind() const override { return CacheKind::kStatic; }

 private:
  using BlockCache::BlockCache;
};

}  // namespace

int64_t KvBytesPerToken(std::span<const KvLayerShape> layers, KvType type) {
  int64_t bytes = 0;
  for (const KvLayerShape& layer : layers) bytes += layer.kv_heads * KvTokenBytes(type, layer.head_dim);
  return bytes;
}

std::string_view KvTypeName(KvType type) {
  switch (type) {
    case KvType::kF32: return "f32";
    case KvType::kBF16: return "bf16";
    case KvType::kF16: return "f16";
    case KvType::kI8: return "i8";
    case KvType::kI4: return "i4";
  }
  return "?";
}

Result<std::unique_ptr<KvCache>> MakeKvCache(CacheKind kind, const KvCacheConfig& config) {
  switch (kind) {
    case CacheKind::kDynamic: return DynamicCache::Make(config);
    case CacheKind::kStatic: return StaticCache::Make(config);
  }
  return Internal("unknown kind of KV cache");
}

}  // namespace kvasir
