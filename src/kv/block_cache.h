// What caches made of blocks share: sequences with a block table per layer, commit, views, accounting. Policies derive
// from it and decide which blocks a sequence has.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "base/checked.h"
#include "kv/block_pool.h"
#include "kv/cache.h"
#include "kv/layout.h"

namespace kvasir {

/// Tiles per block of caches that have no reason for other ones: 128 tokens, runs of memory long enough to be read at
/// full speed.
inline constexpr int32_t kBlockTiles = 8;

class BlockCache : public KvCache {
 public:
  void Commit(SeqId seq, int64_t tokens) override;
  void CommitSlots(SeqId seq, std::span<const int32_t> accepted) override;
  void Release(SeqId seq) override;
  int64_t NextPosition(SeqId seq) const override { return At(seq).length; }
  int64_t KeptTokens(SeqId seq) const override { return At(seq).length; }
  KvRun RunAt(SeqId, int64_t position) const override { return {position, std::numeric_limits<int64_t>::max()}; }
  KvView View(SeqId seq, int layer) const override;
  int64_t BytesInUse() const override;
  KvBlockUse BlockUse() const final;
  std::vector<KvBlock> Blocks() const override;
  int64_t BlockSlots() const final { return block_slots(); }
  int64_t BlockBytes(int layer) const final { return layers_[static_cast<size_t>(layer)].layout.bytes; }
  bool IsPossible(const KvSequenceState& state) const override;
  bool Restore(SeqId seq, const KvSequenceState& state) override;
  std::span<std::byte> Block(SeqId seq, int layer, int64_t block) final;
  void ClearUnused(SeqId seq) override;

 protected:
  struct Layer {
    BlockLayout layout;
    BlockPool* pool = nullptr;  // shared by layers of equal block size
  };
  /// The blocks of one sequence in one layer.
  struct Table {
    std::vector<BlockId> ids;
    std::vector<std::byte*> data;  // of ids, as KvView wants them
  };
  /// Invariant: values in slots behind length + reserved are zero, but for those before stale_end.
  struct Sequence {
    int64_t length = 0;
    int64_t reserved = 0;
    int64_t high_water = 0;     // slots ever handed out for writing
    int64_t stale_end = 0;      // behind length, up to here, values of others may stand in what was a shared block
    std::vector<Table> tables;  // [layers]
  };

  /// A bounded cache never has more slots in a sequence than its bound.
  explicit BlockCache(const KvCacheConfig& config, int32_t block_tiles = kBlockTiles)
      : max_tokens_(config.bound.Reach(config.max_tokens)),
        max_sequences_(config.max_sequences),
        block_tiles_(block_tiles) {}
  /// Lays out the layers and makes the pools. Called once, before all else.
  Status Init(const KvCacheConfig& config);

  Result<SeqId> NewSequence();
  Sequence& At(SeqId seq);
  const Sequence& At(SeqId seq) const;

  int64_t block_slots() const { return int64_t{block_tiles_} * kTileTokens; }
  int64_t BlocksFor(int64_t tokens) const { return CeilDiv(tokens, block_slots()); }
  /// Bytes of `blocks` blocks in every layer.
  int64_t BytesOfBlocks(int64_t blocks) const;
  /// Layers whose blocks are in `pool`: a block of the cache is as many of the pool's.
  int64_t LayersOf(const BlockPool& pool) const {
    return std::count_if(layers_.begin(), layers_.end(), [&](const Layer& layer) { return layer.pool == &pool; });
  }

  /// Makes sure that GrowTo and block copies can take `fresh` more blocks in every layer, and that the tables have
  /// room for `blocks`.
  Status Prepare(Sequence& sequence, int64_t fresh, int64_t blocks);
  /// Appends blocks to every layer until there are `blocks`. REQUIRES: Prepare succeeded for them.
  void GrowTo(Sequence& sequence, int64_t blocks);
  /// Gives back the blocks behind the first `blocks`.
  void ShrinkTo(Sequence& sequence, int64_t blocks);
  /// Zeroes values in the slots [begin, end) of every layer; in blocks that others share they become stale instead.
  void ClearSlots(Sequence& sequence, int64_t begin, int64_t end);
  /// Copies key and value of one slot in every layer.
  void MoveSlot(Sequence& sequence, int64_t from, int64_t to);
  /// Ends a reservation and drops the committed slots from `length` on.
  void Cut(Sequence& sequence, int64_t length);
  /// Sets the reservation to `tokens`. REQUIRES: blocks for them that nobody shares.
  void SetReserved(Sequence& sequence, int64_t tokens);

  /// Whether others share a block; blocks of all layers are shared together.
  bool IsShared(const Sequence& sequence, int64_t block) const {
    return layers_[0].pool->references(sequence.tables[0].ids[static_cast<size_t>(block)]) > 1;
  }
  /// Replaces a shared block by a copy of the sequence's own content. REQUIRES: Prepare succeeded for it.
  void CopyBlock(Sequence& sequence, int64_t block);
  /// A new sequence that shares the committed blocks of `seq`, whose reservation ends.
  Result<SeqId> ForkShared(SeqId seq);

  std::vector<Layer> layers_;
  std::vector<std::unique_ptr<BlockPool>> pools_;
  int64_t max_tokens_;  // slots of the longest sequence
  int64_t max_sequences_;

 private:
  int32_t block_tiles_;
  std::vector<std::optional<Sequence>> sequences_;  // by SeqId
  int64_t alive_ = 0;
};

}  // namespace kvasir
