#include "kv/paged_cache.h"

#include <algorithm>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "kv/dynamic_cache.h"
#include "kv/prefix_tree.h"

namespace kvasir {
namespace {

int64_t BlockTokens(const KvCacheConfig& config) {
  return config.paged.block_tokens != 0 ? config.paged.block_tokens : kPagedBlockTokens;
}

class PagedCache final : public DynamicCache {
 public:
  static Result<std::unique_ptr<KvCache>> Make(const KvCacheConfig& config) {
    ASSIGN_OR_RETURN(const KvPoolSize size, PagedPoolSize(config));
    std::unique_ptr<PagedCache> cache(new PagedCache(config));
    RETURN_IF_ERROR(cache->Init(config));
    for (const auto& pool : cache->pools_) {
      const auto blocks = CheckedMul(size.blocks, cache->LayersOf(*pool));
      if (!blocks) return ResourceExhausted("KV cache: a pool of {} blocks", size.blocks);
      RETURN_IF_ERROR(pool->AllocateAll(*blocks));
    }
    return std::unique_ptr<KvCache>(std::move(cache));
  }

  int64_t KnownPrefix(std::string_view scope, std::span<const int32_t> tokens) const override {
    return static_cast<int64_t>(tree_.Find(scope, Matchable(tokens)).size()) * block_slots();
  }

  int64_t MatchPrefix(SeqId seq, std::string_view scope, std::span<const int32_t> tokens) override {
    Sequence& sequence = At(seq);
    KVASIR_CHECK(sequence.length == 0 && sequence.reserved == 0 && sequence.tables[0].ids.empty());
    const std::vector<PrefixTree::Node*> path = tree_.Find(scope, Matchable(tokens));
    if (!Prepare(sequence, 0, static_cast<int64_t>(path.size())).ok()) return 0;
    for (const PrefixTree::Node* node : path) {
      for (size_t i = 0; i < layers_.size(); ++i) {
        const BlockId id = node->blocks[i];
        layers_[i].pool->AddReference(id);
        sequence.tables[i].ids.push_back(id);
        sequence.tables[i].data.push_back(layers_[i].pool->data(id));
      }
    }
    tree_.Touch(path);
    sequence.length = sequence.high_water = static_cast<int64_t>(path.size()) * block_slots();
    return sequence.length;
  }

  void InsertPrefix(SeqId seq, std::string_view scope, std::span<const int32_t> tokens) override {
    Sequence& sequence = At(seq);
    KVASIR_CHECK(static_cast<int64_t>(tokens.size()) <= sequence.length);
    if (most_prefix_blocks_ == 0) return;
    const auto size = static_cast<size_t>(block_slots());
    std::vector<PrefixTree::Node*> path = tree_.Find(scope, tokens);
    for (size_t block = 0; block < path.size(); ++block) ReplaceBlock(sequence, block, *path[block]);
    for (size_t block = path.size(); (block + 1) * size <= tokens.size(); ++block) {
      PrefixTree::Node* parent = path.empty() ? nullptr : path.back();
      PrefixTree::Node* node = AddNode(scope, parent, tokens.subspan(block * size, size), sequence, block);
      if (node == nullptr) break;
      path.push_back(node);
    }
    tree_.Touch(path);
  }

  void ClearPrefixes() override {
    const auto all = [](const PrefixTree::Node&) { return true; };
    tree_.RemoveOldest(tree_.size(), all, release_);
  }

  std::vector<KvBlock> Blocks() const override {
    std::vector<KvBlock> blocks = DynamicCache::Blocks();
    std::unordered_map<BlockId, int32_t> holders;
    for (const KvBlock& block : blocks) holders[block.id] = block.holders;
    std::erase_if(blocks, [&](const KvBlock& block) { return tree_.NodeOf(block.id) != nullptr; });
    tree_.ForEach([&](const PrefixTree::Node& node) {
      const auto held = holders.find(node.blocks[0]);
      blocks.push_back({.id = node.blocks[0], .holders = held == holders.end() ? 0 : held->second, .known = true});
    });
    return blocks;
  }

  CacheKind kind() const override { return CacheKind::kPaged; }

 protected:
  bool MakeRoom(const Sequence& sequence, int64_t fresh) override {
    const BlockPool& pool = *layers_[0].pool;
    const int64_t missing = fresh - (pool.blocks() - pool.in_use()) / LayersOf(pool);
    if (missing <= 0) return true;
    const int64_t cached = tree_.CountUnused(missing, unused_);
    if (cached == missing) return Evict(missing);
    // A block that the sequence shares with nobody but the tree need not be copied if the tree lets go of it.
    const auto block = static_cast<size_t>(sequence.length / block_slots());
    const std::vector<BlockId>& ids = sequence.tables[0].ids;
    const bool with_tree =
        block < ids.size() && pool.references(ids[block]) == 2 && tree_.NodeOf(ids[block]) != nullptr;
    if (!with_tree || missing - cached > 1) return false;
    Evict(cached);
    if (PrefixTree::Node* node = tree_.NodeOf(ids[block])) tree_.Remove(node, release_);
    return true;
  }

 private:
  explicit PagedCache(const KvCacheConfig& config)
      : DynamicCache(config, static_cast<int32_t>(BlockTokens(config) / kTileTokens)),
        most_prefix_blocks_(config.paged.most_prefix_blocks),
        tree_(BlockTokens(config), config.paged.prefix_hash) {}

  /// What a match may hold: not the last token, and no more than a sequence.
  std::span<const int32_t> Matchable(std::span<const int32_t> tokens) const {
    const int64_t most = std::min(static_cast<int64_t>(tokens.size()) - 1, max_tokens_);
    return tokens.first(static_cast<size_t>(std::max<int64_t>(most, 0)));
  }

  /// Makes the tree give up `count` blocks that nobody else holds. False: there are not as many, and nothing changed.
  bool Evict(int64_t count) {
    if (tree_.CountUnused(count, unused_) < count) return false;
    tree_.RemoveOldest(count, unused_, release_);
    return true;
  }

  /// Lets the tree share a sequence's block. Null: it may hold no more, or there is no memory for a node.
  PrefixTree::Node* AddNode(std::string_view scope, PrefixTree::Node* parent, std::span<const int32_t> tokens,
                            const Sequence& sequence, size_t block) {
    if (tree_.NodeOf(sequence.tables[0].ids[block]) != nullptr) return nullptr;  // the caller changed scope or tokens
    if (tree_.size() >= most_prefix_blocks_ && !Evict(1)) return nullptr;
    try {
      std::vector<BlockId> ids;
      ids.reserve(sequence.tables.size());
      for (const Table& table : sequence.tables) ids.push_back(table.ids[block]);
      PrefixTree::Node* node = tree_.Add(scope, parent, tokens, std::move(ids));
      for (size_t i = 0; i < layers_.size(); ++i) layers_[i].pool->AddReference(node->blocks[i]);
      return node;
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }

  /// Lets a sequence share a node's block, which holds the same as its own.
  void ReplaceBlock(Sequence& sequence, size_t block, const PrefixTree::Node& node) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      Table& table = sequence.tables[i];
      if (table.ids[block] == node.blocks[i]) continue;
      layers_[i].pool->AddReference(node.blocks[i]);
      layers_[i].pool->Release(std::exchange(table.ids[block], node.blocks[i]));
      table.data[block] = layers_[i].pool->data(node.blocks[i]);
    }
  }

  int64_t most_prefix_blocks_;
  PrefixTree tree_;
  const std::function<bool(const PrefixTree::Node&)> unused_ = [this](const PrefixTree::Node& node) {
    return layers_[0].pool->references(node.blocks[0]) == 1;
  };
  const std::function<void(const PrefixTree::Node&)> release_ = [this](const PrefixTree::Node& node) {
    for (size_t i = 0; i < layers_.size(); ++i) layers_[i].pool->Release(node.blocks[i]);
  };
};

}  // namespace

Result<KvPoolSize> PagedPoolSize(const KvCacheConfig& config) {
  const int64_t tokens = BlockTokens(config);
  if (tokens < kTileTokens || tokens > kMostPagedBlockTokens || tokens % kTileTokens != 0) {
    return InvalidArgument("KV cache: blocks of {} tokens; multiples of {} up to {} are possible", tokens, kTileTokens,
                           kMostPagedBlockTokens);
  }
  if (config.max_tokens < 1 || config.max_sequences < 1 || config.paged.pool_tokens < 0 ||
      config.paged.most_prefix_blocks < 0) {
    return InvalidArgument("KV cache: a pool of {} tokens for {} sequences of {}", config.paged.pool_tokens,
                           config.max_sequences, config.max_tokens);
  }
  int64_t block_bytes = 0;
  for (const KvLayerShape& shape : config.layers) {
    ASSIGN_OR_RETURN(const BlockLayout layout,
                     MakeBlockLayout(shape, config.type, static_cast<int32_t>(tokens / kTileTokens)));
    const auto sum = CheckedAdd(block_bytes, layout.bytes);
    if (!sum) return ResourceExhausted("KV cache: {} layers", config.layers.size());
    block_bytes = *sum;
  }
  const auto blocks = config.paged.pool_tokens > 0
                          ? std::optional(CeilDiv(config.paged.pool_tokens, tokens))
                          : CheckedMul(CeilDiv(config.max_tokens, tokens), config.max_sequences);
  const auto slots = blocks ? CheckedMul(*blocks, tokens) : std::nullopt;
  const auto bytes = blocks ? CheckedMul(*blocks, block_bytes) : std::nullopt;
  if (!slots || !bytes)
    return ResourceExhausted("KV cache: {} sequences of {} tokens", config.max_sequences, config.max_tokens);
  return KvPoolSize{.blocks = *blocks, .tokens = *slots, .bytes = *bytes};
}

Result<std::unique_ptr<KvCache>> MakePagedCache(const KvCacheConfig& config) { return PagedCache::Make(config); }

}  // namespace kvasir
