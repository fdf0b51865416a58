#include "kv/layout.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "kernels/kv_codes.h"

namespace kvasir {
namespace {

constexpr int32_t kMaxHeadDim = 512;
constexpr int32_t kMaxHeads = 1 << 16;

/// Slot s of one tile of keys, and of its tile of values, to slot t of others.
void CopyFloats(const BlockLayout& layout, const std::byte* k, int64_t s, std::byte* k_to, int64_t t) {
  const int64_t d = layout.head_dim;
  const int64_t lines = layout.tile_stride / 64;
  for (int64_t i = 0; i < lines; ++i) std::memcpy(k_to + i * 64 + t * 4, k + i * 64 + s * 4, 4);
  const std::byte* v = k + layout.v_offset;
  std::byte* v_to = k_to + layout.v_offset;
  if (layout.type == KvType::kF32) {
    std::memmove(v_to + t * d * 4, v + s * d * 4, static_cast<size_t>(d) * 4);
  } else {
    const std::byte* pair = v + s / 2 * d * 4 + s % 2 * 2;
    std::byte* pair_to = v_to + t / 2 * d * 4 + t % 2 * 2;
    for (int64_t i = 0; i < d; ++i) std::memcpy(pair_to + i * 4, pair + i * 4, 2);
  }
}

/// The same for codes.
void CopyCodes(const BlockLayout& layout, const std::byte* k, int64_t s, std::byte* k_to, int64_t t) {
  const KvType type = layout.type;
  const int64_t d = layout.head_dim;
  const auto copy = [type](const std::byte* from, KvCodePlace at, std::byte* to, KvCodePlace to_at) {
    StoreCode(type, to, to_at, static_cast<uint8_t>(LoadCode(type, from, at)));
  };
  const std::byte* v = k + layout.v_offset;
  std::byte* v_to = k_to + layout.v_offset;
  for (int64_t i = 0; i < d; ++i) {
    copy(k, KeyCodePlace(type, s, i), k_to, KeyCodePlace(type, t, i));
    copy(v, ValueCodePlace(type, d, s, i), v_to, ValueCodePlace(type, d, t, i));
  }
  for (int64_t g = 0; g < KvGroups(type, d); ++g) {
    StoreKvScale(type, k_to + KeyScaleOffset(type, d, t, g), LoadKvScale(type, k + KeyScaleOffset(type, d, s, g)));
    StoreKvScale(type, v_to + ValueScaleOffset(type, d, t, g), LoadKvScale(type, v + ValueScaleOffset(type, d, s, g)));
  }
}

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
  const int64_t s = from_slot % kTileTokens;
  const int64_t t = to_slot % kTileTokens;
  for (int64_t head = 0; head < layout.kv_heads; ++head) {
    const std::byte* k = from + head * layout.head_stride + from_slot / kTileTokens * layout.tile_stride;
    std::byte* k_to = to + head * layout.head_stride + to_slot / kTileTokens * layout.tile_stride;
    if (HasCodes(layout.type)) {
      CopyCodes(layout, k, s, k_to, t);
    } else {
      CopyFloats(layout, k, s, k_to, t);
    }
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
