#include "kv/ring_cache.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "kv/block_cache.h"

namespace kvasir {
namespace {

constexpr int64_t kUnknown = -1;

class RingCache final : public BlockCache {
 public:
  static Result<std::unique_ptr<KvCache>> Make(const KvCacheConfig& config) {
    std::unique_ptr<RingCache> cache(new RingCache(config));
    RETURN_IF_ERROR(cache->Init(config));
    if (config.bound.sinks > 0 && config.rotated_keys) RETURN_IF_ERROR(cache->InitSinkKeys(config));
    return std::unique_ptr<KvCache>(std::move(cache));
  }

  Result<SeqId> Create() override {
    ASSIGN_OR_RETURN(const SeqId seq, NewSequence());
    if (Status status = AddRing(seq); !status.ok()) {
      BlockCache::Release(seq);
      return status;
    }
    return seq;
  }

  bool Reserve(SeqId seq, int64_t tokens) override {
    Sequence& sequence = At(seq);
    Ring& ring = RingOf(seq);
    KVASIR_CHECK(tokens >= 0);
    const int64_t most = std::min(text_limit_ - ring.next, bound_.tokens - std::min(ring.next, bound_.sinks));
    if (tokens > most) return false;
    const int64_t end = ring.next + tokens;
    const int64_t dropped = std::max(ring.dropped, end - bound_.tokens);
    const bool moves = sink_pool_ != nullptr && dropped != ring.sinks_at;

    const int64_t slots = std::min(end, bound_.tokens);
    const int64_t needed = BlocksFor(slots);
    const auto have = static_cast<int64_t>(sequence.tables[0].ids.size());
    const auto is_copied = [&](int64_t block) {
      const int64_t first = block * block_slots();
      bool written = moves && first < bound_.sinks;
      ForSlots(ring.next, end, [&](int64_t slot, int64_t slot_end) {
        written = written || (slot < first + block_slots() && slot_end > first);
      });
      return written && IsShared(sequence, block);
    };
    int64_t copies = 0;
    for (int64_t block = 0; block < have; ++block) copies += is_copied(block);
    if (!Prepare(sequence, std::max<int64_t>(needed - have, 0) + copies, needed).ok()) return false;
    if (tokens > 0 && ring.next < bound_.sinks && !OwnSinkKeys(ring)) return false;

    ClearWrapped(sequence, ring, ring.next);
    for (int64_t block = 0; copies > 0 && block < have; ++block) {
      if (is_copied(block)) CopyBlock(sequence, block);
    }
    GrowTo(sequence, needed);
    ShrinkTo(sequence, needed);
    SetReserved(sequence, slots - sequence.length);
    ring.reserved = tokens;
    ring.dropped = dropped;
    // Known again once a pass that rotated them is committed.
    if (moves) ring.sinks_at = kUnknown;
    NumberSlots(ring);
    return true;
  }

  void Commit(SeqId seq, int64_t tokens) override {
    Sequence& sequence = At(seq);
    Ring& ring = RingOf(seq);
    KVASIR_CHECK(tokens >= 0 && tokens <= ring.reserved);
    ClearWrapped(sequence, ring, ring.next + tokens);
    const bool all = tokens == ring.reserved;
    ring.next += tokens;
    ring.reserved = 0;
    if (tokens > 0) ring.sinks_at = ring.dropped;
    Cut(sequence, std::min(ring.next, bound_.tokens));
    ShrinkTo(sequence, BlocksFor(sequence.length));
    if (!all) NumberSlots(ring);
  }

  void CommitSlots(SeqId seq, std::span<const int32_t> accepted) override {
    Sequence& sequence = At(seq);
    const Ring& ring = RingOf(seq);
    int64_t to = ring.next;
    int64_t last = -1;
    for (const int32_t offset : accepted) {
      KVASIR_CHECK(offset > last && offset < ring.reserved);
      last = offset;
      const int64_t from = ring.next + offset;
      if (from != to) {
        KVASIR_CHECK(to >= bound_.sinks);
        MoveSlot(sequence, SlotOf(from), SlotOf(to));
      }
      ++to;
    }
    Commit(seq, to - ring.next);
  }

  bool Truncate(SeqId seq, int64_t length) override {
    Sequence& sequence = At(seq);
    Ring& ring = RingOf(seq);
    KVASIR_CHECK(length >= 0 && length <= ring.next);
    if (length > 0 && length < ring.next && ring.dropped > 0) return false;
    Commit(seq, 0);
    if (length == ring.next) return true;
    ShrinkTo(sequence, BlocksFor(length));
    Cut(sequence, length);
    ring.next = length;
    if (length == 0) ring.dropped = ring.sinks_at = 0;
    return true;
  }

  Result<SeqId> Fork(SeqId seq) override {
    ASSIGN_OR_RETURN(const SeqId fork, ForkShared(seq));
    if (Status status = AddRing(fork, &RingOf(seq)); !status.ok()) {
      BlockCache::Release(fork);
      return status;
    }
    return fork;
  }

  void Release(SeqId seq) override {
    Ring& ring = RingOf(seq);
    if (sink_pool_) sink_pool_->Release(ring.sink_keys);
    ring = {};
    BlockCache::Release(seq);
  }

  int64_t NextPosition(SeqId seq) const override { return RingOf(seq).next; }
  int64_t KeptTokens(SeqId seq) const override { return RingOf(seq).next - RingOf(seq).dropped; }
  KvRun RunAt(SeqId, int64_t position) const override { return {SlotOf(position), bound_.tokens - SlotOf(position)}; }

  KvView View(SeqId seq, int layer) const override {
    KvView view = BlockCache::View(seq, layer);
    const Ring& ring = RingOf(seq);
    if (ring.dropped > 0) view.positions = ring.positions.data();
    return view;
  }

  KvSinks MovedSinks(SeqId seq) const override {
    const Ring& ring = RingOf(seq);
    if (sink_pool_ == nullptr || ring.sinks_at == ring.dropped) return {};
    return {bound_.sinks, ring.dropped};
  }

  bool SlotsArePositions() const override { return false; }

  KvSequenceState State(SeqId seq) const override {
    const Ring& ring = RingOf(seq);
    return {.next = ring.next, .dropped = ring.dropped, .sinks_in_place = MovedSinks(seq).count == 0};
  }

  bool IsPossible(const KvSequenceState& state) const override {
    if (state.next < 0 || state.next > text_limit_ || state.dropped < 0) return false;
    if (state.dropped > state.next - std::min(state.next, bound_.sinks)) return false;
    if (state.next - state.dropped > bound_.tokens) return false;
    return state.sinks_in_place || (sink_pool_ != nullptr && state.dropped > 0);
  }

  bool Restore(SeqId seq, const KvSequenceState& state) override {
    Sequence& sequence = At(seq);
    Ring& ring = RingOf(seq);
    KVASIR_CHECK(IsPossible(state) && sequence.high_water == 0);
    const int64_t slots = std::min(state.next, bound_.tokens);
    const int64_t blocks = BlocksFor(slots);
    if (!Prepare(sequence, blocks, blocks).ok()) return false;
    GrowTo(sequence, blocks);
    SetReserved(sequence, slots);
    Cut(sequence, slots);
    ring.next = state.next;
    ring.dropped = state.dropped;
    ring.sinks_at = state.sinks_in_place ? state.dropped : kUnknown;
    NumberSlots(ring);
    return true;
  }

  void ClearUnused(SeqId seq) override {
    BlockCache::ClearUnused(seq);
    const Ring& ring = RingOf(seq);
    if (ring.dropped == 0) return;
    // A pass that was given up left slots of dropped tokens empty.
    Sequence& sequence = At(seq);
    for (int64_t slot = 0; slot < sequence.length; ++slot) {
      if (ring.positions[static_cast<size_t>(slot)] < 0) ClearSlots(sequence, slot, slot + 1);
    }
  }

  MatView<float> SinkKeys(SeqId seq, int layer) const override {
    if (sink_pool_ == nullptr) return {};
    auto* keys = reinterpret_cast<float*>(sink_pool_->data(RingOf(seq).sink_keys));
    const BlockLayout& layout = layers_[static_cast<size_t>(layer)].layout;
    return {keys + sink_offsets_[static_cast<size_t>(layer)], bound_.sinks, int64_t{layout.kv_heads} * layout.head_dim};
  }

  int64_t SinkKeyBytesPerToken() const override { return sink_key_bytes_; }

  int64_t BytesFor(int64_t tokens) const override {
    const int64_t blocks = BytesOfBlocks(BlocksFor(std::clamp<int64_t>(tokens, 0, max_tokens_)));
    return sink_pool_ ? CheckedAdd(blocks, sink_pool_->block_bytes()).value_or(blocks) : blocks;
  }
  CacheKind kind() const override { return bound_.sinks > 0 ? CacheKind::kSink : CacheKind::kWindow; }
  KvBound bound() const override { return bound_; }

 private:
  /// What a sequence has beside its blocks, whose length and reservation count slots, those of the ring once.
  /// Invariant: the tokens [sinks + dropped, next + reserved) are in the ring, and slots without a token have zero
  /// values.
  struct Ring {
    int64_t next = 0;      // position of the next token
    int64_t reserved = 0;  // tokens
    int64_t dropped = 0;   // tokens forgotten behind the sinks
    int64_t sinks_at = 0;  // position to which the sinks' keys in the tiles are rotated; kUnknown: must be written
    BlockId sink_keys = 0;
    std::vector<int32_t> positions;  // of slots, in use once dropped > 0
  };

  explicit RingCache(const KvCacheConfig& config)
      : BlockCache(config), bound_(config.bound), text_limit_(config.max_tokens) {}

  /// The pool of the sinks' keys before rotation, fp32: a block for each sequence, layer after layer.
  Status InitSinkKeys(const KvCacheConfig& config) {
    int64_t floats = 0;
    for (const KvLayerShape& shape : config.layers) {
      sink_offsets_.push_back(floats);
      const auto size = CheckedMul(bound_.sinks, int64_t{shape.kv_heads} * shape.head_dim);
      const auto sum = size ? CheckedAdd(floats, *size) : std::nullopt;
      if (!sum) return ResourceExhausted("KV cache: {} sinks", bound_.sinks);
      floats = *sum;
      sink_key_bytes_ += int64_t{shape.kv_heads} * shape.head_dim * static_cast<int64_t>(sizeof(float));
    }
    const auto bytes = CheckedMul<int64_t>(floats, sizeof(float));
    if (!bytes || *bytes > std::numeric_limits<int64_t>::max() - 64) {
      return ResourceExhausted("KV cache: {} sinks", bound_.sinks);
    }
    pools_.push_back(std::make_unique<BlockPool>(RoundUp(*bytes, 64), 1, max_sequences_));
    sink_pool_ = pools_.back().get();
    return OkStatus();
  }

  Ring& RingOf(SeqId seq) { return rings_[static_cast<size_t>(seq)]; }
  const Ring& RingOf(SeqId seq) const { return rings_[static_cast<size_t>(seq)]; }

  /// The ring of a new sequence, a copy of `source` where there is one.
  Status AddRing(SeqId seq, const Ring* source = nullptr) {
    Ring fresh;
    try {
      if (source) fresh = *source;
      fresh.positions.resize(static_cast<size_t>(max_tokens_));
      if (rings_.size() <= static_cast<size_t>(seq)) rings_.resize(static_cast<size_t>(seq) + 1);
    } catch (const std::bad_alloc&) {
      return ResourceExhausted("KV cache: no memory for the positions of {} slots", max_tokens_);
    }
    if (sink_pool_ && source) {
      sink_pool_->AddReference(fresh.sink_keys);
    } else if (sink_pool_) {
      ASSIGN_OR_RETURN(fresh.sink_keys, sink_pool_->Allocate());
    }
    RingOf(seq) = std::move(fresh);
    return OkStatus();
  }

  /// Copies the sinks' keys where others share them, before more are written. False: no memory.
  bool OwnSinkKeys(Ring& ring) {
    if (sink_pool_ == nullptr || sink_pool_->references(ring.sink_keys) == 1) return true;
    const auto copy = sink_pool_->Allocate();
    if (!copy.ok()) return false;
    std::memcpy(sink_pool_->data(*copy), sink_pool_->data(ring.sink_keys),
                static_cast<size_t>(sink_pool_->block_bytes()));
    sink_pool_->Release(std::exchange(ring.sink_keys, *copy));
    return true;
  }

  int64_t SlotOf(int64_t position) const {
    if (position < bound_.tokens) return position;
    return bound_.sinks + (position - bound_.sinks) % (bound_.tokens - bound_.sinks);
  }

  /// visit(slot, end of the run) for the slots of the tokens at positions [begin, end), in order.
  template <typename F>
  void ForSlots(int64_t begin, int64_t end, const F& visit) const {
    while (begin < end) {
      const int64_t slot = SlotOf(begin);
      const int64_t count = std::min(end - begin, bound_.tokens - slot);
      visit(slot, slot + count);
      begin += count;
    }
  }

  /// Zeroes the values of reserved tokens from `begin` on that lie in slots used again. Reserve made their blocks the
  /// sequence's own.
  void ClearWrapped(Sequence& sequence, const Ring& ring, int64_t begin) {
    ForSlots(std::max(begin, bound_.tokens), ring.next + ring.reserved,
             [&](int64_t slot, int64_t end) { ClearSlots(sequence, slot, end); });
  }

  /// Fills `positions`: those inside the cache; without sinks those of the text.
  void NumberSlots(Ring& ring) const {
    if (ring.dropped == 0) return;
    std::fill(ring.positions.begin(), ring.positions.end(), -1);
    const int64_t origin = bound_.sinks > 0 ? ring.dropped : 0;
    for (int64_t s = 0; s < bound_.sinks; ++s) ring.positions[static_cast<size_t>(s)] = static_cast<int32_t>(s);
    int64_t position = bound_.sinks + ring.dropped - origin;
    ForSlots(bound_.sinks + ring.dropped, ring.next + ring.reserved, [&](int64_t slot, int64_t end) {
      while (slot < end) ring.positions[static_cast<size_t>(slot++)] = static_cast<int32_t>(position++);
    });
  }

  KvBound bound_;
  int64_t text_limit_;
  std::vector<Ring> rings_;  // by SeqId
  BlockPool* sink_pool_ = nullptr;
  std::vector<int64_t> sink_offsets_;  // [layers], floats
  int64_t sink_key_bytes_ = 0;         // of one sink in all layers
};

}  // namespace

Result<std::unique_ptr<KvCache>> MakeRingCache(CacheKind kind, const KvCacheConfig& config) {
  const KvBound& bound = config.bound;
  if (bound.tokens < 1) return InvalidArgument("KV cache: a bounded one keeps at least 1 token, not {}", bound.tokens);
  if (bound.tokens > kMostKvTokens) {
    return InvalidArgument("KV cache: {} tokens per sequence; 1 to {} are possible", bound.tokens, kMostKvTokens);
  }
  if (kind == CacheKind::kWindow && bound.sinks != 0) {
    return InvalidArgument("KV cache: a window has no sinks, not {}", bound.sinks);
  }
  if (kind == CacheKind::kSink && (bound.sinks < 1 || bound.tokens <= bound.sinks)) {
    return InvalidArgument("KV cache: {} sinks in {} tokens; at least 1 sink and 1 token behind the sinks are needed",
                           bound.sinks, bound.tokens);
  }
  return RingCache::Make(config);
}

}  // namespace kvasir
