// The static cache, and the choice between all.
#include "kv/cache.h"

#include <algorithm>
#include <cstring>

#include "kv/block_cache.h"
#include "kv/dynamic_cache.h"
#include "kv/paged_cache.h"
#include "kv/ring_cache.h"

namespace kvasir {
namespace {

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

  bool Truncate(SeqId seq, int64_t length) override {
    Sequence& sequence = At(seq);
    KVASIR_CHECK(length >= 0 && length <= sequence.length);
    Cut(sequence, length);
    return true;
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
    case CacheKind::kWindow:
    case CacheKind::kSink: return MakeRingCache(kind, config);
    case CacheKind::kPaged: return MakePagedCache(config);
  }
  return Internal("unknown kind of KV cache");
}

}  // namespace kvasir
