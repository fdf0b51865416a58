#include "kv/layout.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "kernels/kv_codes.h"
#include "kernels/kv_tiles.h"

namespace kvasir {
namespace {

constexpr int32_t kMaxHeadDim = 512;
constexpr int32_t kMaxHeads = 1 << 16;

/// Zeroes one slot of a tile of values.
void ClearCodes(const BlockLayout& layout, std::byte* v, int64_t s) {
  const int64_t d = layout.head_dim;
  for (int64_t i = 0; i < d; ++i) StoreCode(layout.type, v, ValueCodePlace(layout.type, d, s, i), 0);
  for (int64_t g = 0; g < KvGroups(layout.type, d); ++g) {
    StoreKvScale(layout.type, v + ValueScaleOffset(layout.type, d, s, g), {});
  }
}

}  // namespace

KvView BlockLayout::EmptyView() const {
  KvView view;
  view.type = type;
  view.kv_heads = kv_heads;
  view.head_dim = head_dim;
  view.block_tiles = block_tiles;
  view.head_stride = head_stride;
  view.tile_stride = tile_stride;
  view.v_offset = v_offset;
  return view;
}

Result<BlockLayout> MakeBlockLayout(const KvLayerShape& shape, KvType type, int32_t block_tiles) {
  if (shape.kv_heads < 1 || shape.kv_heads > kMaxHeads || shape.head_dim < 1 || shape.head_dim > kMaxHeadDim) {
    return InvalidArgument("KV cache: {} KV heads of {} values; 1 to {} heads of 1 to {} are possible", shape.kv_heads,
                           shape.head_dim, kMaxHeads, kMaxHeadDim);
  }
  BlockLayout layout;
  layout.type = type;
  layout.kv_heads = shape.kv_heads;
  layout.head_dim = shape.head_dim;
  layout.block_tiles = block_tiles;
  layout.tile_stride = KvTileBytes(type, shape.head_dim);
  layout.v_offset = layout.tile_stride * block_tiles;
  layout.head_stride = 2 * layout.v_offset;
  layout.bytes = layout.head_stride * shape.kv_heads;
  return layout;
}

void CopySlot(const BlockLayout& layout, const std::byte* from, int64_t from_slot, std::byte* to, int64_t to_slot) {
  for (int64_t head = 0; head < layout.kv_heads; ++head) {
    const std::byte* k = from + head * layout.head_stride + from_slot / kTileTokens * layout.tile_stride;
    std::byte* k_to = to + head * layout.head_stride + to_slot / kTileTokens * layout.tile_stride;
    CopyTileSlot(layout.type, layout.head_dim, {k, k + layout.v_offset}, from_slot % kTileTokens,
                 {k_to, k_to + layout.v_offset}, to_slot % kTileTokens);
  }
}

void ClearValues(const BlockLayout& layout, std::byte* block, int64_t begin, int64_t end) {
  const int64_t d = layout.head_dim;
  while (begin < end) {
    const int64_t tile = begin / kTileTokens;
    const int64_t first = begin % kTileTokens;
    const int64_t last = std::min(end - tile * kTileTokens, kTileTokens);  // of this tile, exclusive
    for (int64_t head = 0; head < layout.kv_heads; ++head) {
      std::byte* v = block + head * layout.head_stride + tile * layout.tile_stride + layout.v_offset;
      if (first == 0 && last == kTileTokens) {
        std::memset(v, 0, static_cast<size_t>(layout.tile_stride));
      } else if (layout.type == KvType::kF32) {
        std::memset(v + first * d * 4, 0, static_cast<size_t>((last - first) * d * 4));
      } else if (HasCodes(layout.type)) {
        for (int64_t s = first; s < last; ++s) ClearCodes(layout, v, s);
      } else {
        for (int64_t s = first; s < last; ++s) {
          std::byte* pair = v + s / 2 * d * 4 + s % 2 * 2;
          for (int64_t i = 0; i < d; ++i) std::memset(pair + i * 4, 0, 2);
        }
      }
    }
    begin = tile * kTileTokens + last;
  }
}

}  // namespace kvasir
