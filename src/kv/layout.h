// How a block of KV tiles lies in memory, and operations on single slots of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "kernels/views.h"
#include "kv/cache.h"

namespace kvasir {

/// A block: for each KV head its K tiles one after the other, then its V tiles, so that attention reads two runs.
struct BlockLayout {
  KvType type = KvType::kBF16;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tiles = 0;
  int64_t head_stride = 0;  // bytes, as in KvView
  int64_t tile_stride = 0;
  int64_t v_offset = 0;
  int64_t bytes = 0;  // of one block, a multiple of 64

  int64_t slots() const { return block_tiles * kTileTokens; }
  /// A view with this layout, without blocks and slots.
  KvView EmptyView() const;
  friend bool operator==(const BlockLayout&, const BlockLayout&) = default;
};

/// InvalidArgument for shapes that no kernel can run.
Result<BlockLayout> MakeBlockLayout(const KvLayerShape& shape, KvType type, int32_t block_tiles);

/// Copies key and value of one slot (an index within its block), for all heads. from may be to.
void CopySlot(const BlockLayout& layout, const std::byte* from, int64_t from_slot, std::byte* to, int64_t to_slot);

/// Zeroes the values of the slots [begin, end) of a block. Values are multiplied by a weight of exactly 0 while their
/// slot is not in use, so a NaN among them would spread; keys are masked and may stay.
void ClearValues(const BlockLayout& layout, std::byte* block, int64_t begin, int64_t end);

}  // namespace kvasir
