#include "kv/block_cache.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <unordered_map>
#include <utility>

#include "base/checked.h"

namespace kvasir {

Status BlockCache::Init(const KvCacheConfig& config) {
  if (config.layers.empty()) return InvalidArgument("KV cache: a model without layers");
  if (config.max_tokens < 1 || config.max_tokens > kMostKvTokens) {
    return InvalidArgument("KV cache: {} tokens per sequence; 1 to {} are possible", config.max_tokens, kMostKvTokens);
  }
  if (config.max_sequences < 1 || config.max_sequences > std::numeric_limits<SeqId>::max()) {
    return InvalidArgument("KV cache: {} sequences", config.max_sequences);
  }
  for (const KvLayerShape& shape : config.layers) {
    ASSIGN_OR_RETURN(const BlockLayout layout, MakeBlockLayout(shape, config.type, block_tiles_));
    layers_.push_back({layout, nullptr});
  }
  for (Layer& layer : layers_) {
    const auto same = [&](const auto& pool) { return pool->block_bytes() == layer.layout.bytes; };
    auto pool = std::find_if(pools_.begin(), pools_.end(), same);
    if (pool == pools_.end()) {
      const auto sharing = std::count_if(layers_.begin(), layers_.end(),
                                         [&](const Layer& other) { return other.layout.bytes == layer.layout.bytes; });
      const auto most = CheckedMul(CheckedMul<int64_t>(BlocksFor(max_tokens_), max_sequences_).value_or(-1), sharing);
      pools_.push_back(std::make_unique<BlockPool>(layer.layout.bytes, sharing,
                                                   most && *most > 0 ? *most : std::numeric_limits<int64_t>::max()));
      pool = pools_.end() - 1;
    }
    layer.pool = pool->get();
  }
  return OkStatus();
}

Result<SeqId> BlockCache::NewSequence() {
  if (alive_ == max_sequences_) {
    return ResourceExhausted("KV cache: {} sequences are alive, as many as it was made for", alive_);
  }
  try {
    Sequence fresh;
    fresh.tables.resize(layers_.size());
    auto free = std::find(sequences_.begin(), sequences_.end(), std::nullopt);
    if (free == sequences_.end()) {
      sequences_.emplace_back();
      free = sequences_.end() - 1;
    }
    *free = std::move(fresh);
    ++alive_;
    return static_cast<SeqId>(free - sequences_.begin());
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("KV cache: no memory for the tables of another sequence");
  }
}

BlockCache::Sequence& BlockCache::At(SeqId seq) {
  return const_cast<Sequence&>(static_cast<const BlockCache*>(this)->At(seq));
}

const BlockCache::Sequence& BlockCache::At(SeqId seq) const {
  KVASIR_CHECK(seq >= 0 && static_cast<size_t>(seq) < sequences_.size());
  const auto& sequence = sequences_[static_cast<size_t>(seq)];
  KVASIR_CHECK(sequence.has_value());
  return *sequence;
}

int64_t BlockCache::BytesOfBlocks(int64_t blocks) const {
  int64_t bytes = 0;
  for (const Layer& layer : layers_) bytes += layer.layout.bytes;
  const auto total = CheckedMul(bytes, blocks);
  return total ? *total : std::numeric_limits<int64_t>::max();
}

Status BlockCache::Prepare(Sequence& sequence, int64_t fresh, int64_t blocks) {
  if (fresh > 0) {
    for (const auto& pool : pools_) {
      const auto needed = CheckedMul<int64_t>(fresh, LayersOf(*pool));
      if (!needed) return ResourceExhausted("KV cache: {} blocks per layer", fresh);
      RETURN_IF_ERROR(pool->Prepare(*needed));
    }
  }
  try {
    for (Table& table : sequence.tables) {
      const auto wanted = static_cast<size_t>(blocks);
      if (wanted <= table.ids.capacity() && wanted <= table.data.capacity()) continue;
      table.ids.reserve(std::max(wanted, 2 * table.ids.capacity()));
      table.data.reserve(std::max(wanted, 2 * table.data.capacity()));
    }
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("KV cache: no memory for tables of {} blocks", blocks);
  }
  return OkStatus();
}

void BlockCache::GrowTo(Sequence& sequence, int64_t blocks) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    Table& table = sequence.tables[i];
    while (static_cast<int64_t>(table.ids.size()) < blocks) {
      const auto id = layers_[i].pool->Allocate();
      KVASIR_CHECK(id.ok());
      table.ids.push_back(*id);
      table.data.push_back(layers_[i].pool->data(*id));
    }
  }
}

void BlockCache::ShrinkTo(Sequence& sequence, int64_t blocks) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    Table& table = sequence.tables[i];
    while (static_cast<int64_t>(table.ids.size()) > blocks) {
      const int64_t first_slot = (static_cast<int64_t>(table.ids.size()) - 1) * block_slots();
      layers_[i].pool->Release(table.ids.back(), first_slot < sequence.high_water);
      table.ids.pop_back();
      table.data.pop_back();
    }
  }
}

void BlockCache::ClearSlots(Sequence& sequence, int64_t begin, int64_t end) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Table& table = sequence.tables[i];
    const int64_t last = std::min(end, static_cast<int64_t>(table.ids.size()) * block_slots());
    for (int64_t slot = begin; slot < last;) {
      const int64_t block = slot / block_slots();
      const int64_t first = slot - block * block_slots();
      const int64_t count = std::min(block_slots() - first, last - slot);
      const BlockId id = table.ids[static_cast<size_t>(block)];
      if (layers_[i].pool->references(id) == 1) {
        ClearValues(layers_[i].layout, layers_[i].pool->data(id), first, first + count);
      } else {
        sequence.stale_end = std::max(sequence.stale_end, slot + count);
      }
      slot += count;
    }
  }
}

void BlockCache::MoveSlot(Sequence& sequence, int64_t from, int64_t to) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const std::vector<std::byte*>& data = sequence.tables[i].data;
    CopySlot(layers_[i].layout, data[static_cast<size_t>(from / block_slots())], from % block_slots(),
             data[static_cast<size_t>(to / block_slots())], to % block_slots());
  }
}

void BlockCache::Cut(Sequence& sequence, int64_t length) {
  ClearSlots(sequence, length, sequence.length + sequence.reserved);
  sequence.length = length;
  sequence.reserved = 0;
}

void BlockCache::SetReserved(Sequence& sequence, int64_t tokens) {
  const int64_t end = sequence.length + tokens;
  // A smaller reservation than the one before leaves slots behind that may have been written.
  ClearSlots(sequence, end, sequence.length + sequence.reserved);
  if (tokens > 0 && sequence.stale_end > sequence.length) {
    const int64_t stale_end = std::exchange(sequence.stale_end, 0);
    ClearSlots(sequence, sequence.length, stale_end);
  }
  sequence.reserved = tokens;
  sequence.high_water = std::max(sequence.high_water, end);
}

void BlockCache::CopyBlock(Sequence& sequence, int64_t block) {
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

Result<SeqId> BlockCache::ForkShared(SeqId seq) {
  ASSIGN_OR_RETURN(const SeqId fork, NewSequence());
  // It would write into blocks that are shared from now on.
  Commit(seq, 0);
  const Sequence& source = At(seq);
  Sequence& copy = At(fork);
  copy.length = source.length;
  copy.high_water = source.high_water;
  copy.stale_end = source.stale_end;
  const auto blocks = static_cast<size_t>(BlocksFor(source.length));
  if (Status status = Prepare(copy, 0, static_cast<int64_t>(blocks)); !status.ok()) {
    BlockCache::Release(fork);
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

void BlockCache::Commit(SeqId seq, int64_t tokens) {
  Sequence& sequence = At(seq);
  KVASIR_CHECK(tokens >= 0 && tokens <= sequence.reserved);
  Cut(sequence, sequence.length + tokens);
}

void BlockCache::CommitSlots(SeqId seq, std::span<const int32_t> accepted) {
  Sequence& sequence = At(seq);
  int64_t to = sequence.length;
  int64_t last = -1;
  for (const int32_t offset : accepted) {
    KVASIR_CHECK(offset > last && offset < sequence.reserved);
    last = offset;
    const int64_t from = sequence.length + offset;
    if (from != to) MoveSlot(sequence, from, to);
    ++to;
  }
  Commit(seq, to - sequence.length);
}

void BlockCache::Release(SeqId seq) {
  ShrinkTo(At(seq), 0);
  sequences_[static_cast<size_t>(seq)].reset();
  --alive_;
}

KvView BlockCache::View(SeqId seq, int layer) const {
  const Sequence& sequence = At(seq);
  KVASIR_CHECK(layer >= 0 && static_cast<size_t>(layer) < layers_.size());
  KvView view = layers_[static_cast<size_t>(layer)].layout.EmptyView();
  view.blocks = sequence.tables[static_cast<size_t>(layer)].data.data();
  view.length = sequence.length + sequence.reserved;
  return view;
}

bool BlockCache::IsPossible(const KvSequenceState& state) const {
  return state.next >= 0 && state.next <= max_tokens_ && state.dropped == 0 && state.sinks_in_place;
}

bool BlockCache::Restore(SeqId seq, const KvSequenceState& state) {
  KVASIR_CHECK(IsPossible(state) && At(seq).high_water == 0);
  if (!Reserve(seq, state.next)) return false;
  Commit(seq, state.next);
  return true;
}

std::span<std::byte> BlockCache::Block(SeqId seq, int layer, int64_t block) {
  const auto at = static_cast<size_t>(layer);
  const std::vector<std::byte*>& data = At(seq).tables[at].data;
  KVASIR_CHECK(at < layers_.size() && block >= 0 && static_cast<size_t>(block) < data.size());
  return {data[static_cast<size_t>(block)], static_cast<size_t>(layers_[at].layout.bytes)};
}

void BlockCache::ClearUnused(SeqId seq) {
  Sequence& sequence = At(seq);
  const auto blocks = static_cast<int64_t>(sequence.tables[0].data.size());
  ClearSlots(sequence, sequence.length, blocks * block_slots());
}

int64_t BlockCache::BytesInUse() const {
  int64_t bytes = 0;
  for (const auto& pool : pools_) bytes += pool->in_use() * pool->block_bytes();
  return bytes;
}

KvBlockUse BlockCache::BlockUse() const {
  const BlockPool& pool = *layers_[0].pool;
  const int64_t layers = LayersOf(pool);
  std::unordered_map<BlockId, int64_t> filled;  // slots with a token, of blocks that sequences hold
  for (const auto& sequence : sequences_) {
    if (!sequence) continue;
    const std::vector<BlockId>& ids = sequence->tables[0].ids;
    for (size_t b = 0; b < ids.size(); ++b) {
      const int64_t first = static_cast<int64_t>(b) * block_slots();
      int64_t& most = filled[ids[b]];
      most = std::max(most, std::clamp<int64_t>(sequence->length - first, 0, block_slots()));
    }
  }
  KvBlockUse use{.blocks = pool.blocks() / layers, .used = static_cast<int64_t>(filled.size())};
  use.cached = pool.in_use() / layers - use.used;
  use.slots = use.used * block_slots();
  use.wasted_slots = use.slots;
  for (const auto& [id, slots] : filled) use.wasted_slots -= slots;
  return use;
}

std::vector<KvBlock> BlockCache::Blocks() const {
  std::unordered_map<BlockId, KvBlock> held;
  for (const auto& sequence : sequences_) {
    if (!sequence) continue;
    for (const BlockId id : sequence->tables[0].ids) {
      KvBlock& block = held[id];
      block.id = id;
      ++block.holders;
    }
  }
  std::vector<KvBlock> blocks;
  blocks.reserve(held.size());
  for (const auto& [id, block] : held) blocks.push_back(block);
  return blocks;
}

}  // namespace kvasir
