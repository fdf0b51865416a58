#include "kernels/kv_tiles.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "kernels/kv_codes.h"

namespace kvasir {
namespace {

/// Copies `count` units of kUnit bytes that lie kStride bytes apart.
template <int kUnit, int kStride>
void CopyUnits(const std::byte* from, std::byte* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * kStride, from + i * kStride, kUnit);
}

/// Codes of a slot: of keys units of two bytes every 32, of values bytes every two. No two slots share a byte.
struct CodeGroup {
  int64_t first;  // channel
  int64_t index;
  int64_t key_units;
  int64_t value_bytes;
};

/// Calls run(CodeGroup) for the groups of channels that share a scale.
template <typename Run>
void ForEachGroup(KvType type, int64_t d, const Run& run) {
  const bool i4 = type == KvType::kI4;
  const int64_t codes = i4 ? 2 : 1;  // in a byte
  for (int64_t g = 0; g < KvGroups(type, d); ++g) {
    const int64_t first = g * kKvGroup;
    const int64_t n = i4 ? std::min(kKvGroup, d - first) : d;
    run(CodeGroup{first, g, (n + 2 * codes - 1) / (2 * codes), (n + codes - 1) / codes});
  }
}

void CopyValueCodes(KvType type, int64_t d, const CodeGroup& group, const std::byte* from, int64_t s, std::byte* to,
                    int64_t t) {
  CopyUnits<1, 2>(from + ValueCodePlace(type, d, s, group.first).byte,
                  to + ValueCodePlace(type, d, t, group.first).byte, group.value_bytes);
  StoreKvScale(type, to + ValueScaleOffset(type, d, t, group.index),
               LoadKvScale(type, from + ValueScaleOffset(type, d, s, group.index)));
}

/// Keys of all tiles, of which slot s has `count` units of kUnit bytes from offset + s · kUnit on, kStride apart.
template <int kUnit, int kStride>
void GatherUnits(std::span<const TileGather> tiles, int64_t offset, int64_t count) {
  const std::byte* from[kMaxTileGathers][kTileTokens];
  for (size_t i = 0; i < tiles.size(); ++i) {
    for (int64_t t = 0; t < kTileTokens; ++t) from[i][t] = tiles[i].from[t].k + offset + tiles[i].slots[t] * kUnit;
  }
  for (int64_t line = 0; line < count * kStride; line += kStride) {
    for (size_t i = 0; i < tiles.size(); ++i) {
      std::byte* to = tiles[i].to.k + offset + line;
      for (int64_t t = 0; t < kTileTokens; ++t) std::memcpy(to + t * kUnit, from[i][t] + line, kUnit);
    }
  }
}

void GatherF32(int64_t d, std::span<const TileGather> tiles) {
  GatherUnits<4, 64>(tiles, 0, d);
  for (const TileGather& tile : tiles) {
    for (int64_t t = 0; t < kTileTokens; ++t) {
      std::memcpy(tile.to.v + t * d * 4, tile.from[t].v + tile.slots[t] * d * 4, static_cast<size_t>(d) * 4);
    }
  }
}

/// Values of 16 bits lie in pairs of slots.
void Gather16(int64_t d, std::span<const TileGather> tiles) {
  GatherUnits<4, 64>(tiles, 0, (d + 1) / 2);
  for (const TileGather& tile : tiles) {
    for (int64_t t = 0; t < kTileTokens; t += 2) {
      const std::byte* low = tile.from[t].v + tile.slots[t] / 2 * d * 4;
      const std::byte* high = tile.from[t + 1].v + tile.slots[t + 1] / 2 * d * 4;
      const int low_shift = tile.slots[t] % 2 * 16;
      const int high_shift = tile.slots[t + 1] % 2 * 16;
      std::byte* to = tile.to.v + t / 2 * d * 4;
      for (int64_t i = 0; i < d; ++i) {
        uint32_t a;
        uint32_t b;
        std::memcpy(&a, low + i * 4, 4);
        std::memcpy(&b, high + i * 4, 4);
        const uint32_t pair = (a >> low_shift & 0xffffu) | (b >> high_shift) << 16;
        std::memcpy(to + i * 4, &pair, 4);
      }
    }
  }
}

void GatherCodes(KvType type, int64_t d, std::span<const TileGather> tiles) {
  ForEachGroup(type, d, [&](const CodeGroup& group) {
    GatherUnits<2, 32>(tiles, KeyCodePlace(type, 0, group.first).byte, group.key_units);
    const int64_t scales = KeyScaleOffset(type, d, 0, group.index);
    if (type == KvType::kI4) {
      GatherUnits<4, 64>(tiles, scales, 1);
    } else {
      GatherUnits<2, 32>(tiles, scales, 1);
    }
    for (const TileGather& tile : tiles) {
      for (int64_t t = 0; t < kTileTokens; ++t) {
        CopyValueCodes(type, d, group, tile.from[t].v, tile.slots[t], tile.to.v, t);
      }
    }
  });
}

}  // namespace

void CopyTileSlot(KvType type, int64_t d, KvTiles<const std::byte> from, int64_t s, KvTiles<std::byte> to, int64_t t) {
  switch (type) {
    case KvType::kF32:
      CopyUnits<4, 64>(from.k + s * 4, to.k + t * 4, d);
      std::memmove(to.v + t * d * 4, from.v + s * d * 4, static_cast<size_t>(d) * 4);
      break;
    case KvType::kBF16:
    case KvType::kF16:
      CopyUnits<4, 64>(from.k + s * 4, to.k + t * 4, (d + 1) / 2);
      CopyUnits<2, 4>(from.v + s / 2 * d * 4 + s % 2 * 2, to.v + t / 2 * d * 4 + t % 2 * 2, d);
      break;
    case KvType::kI8:
    case KvType::kI4:
      ForEachGroup(type, d, [&](const CodeGroup& group) {
        CopyUnits<2, 32>(from.k + KeyCodePlace(type, s, group.first).byte,
                         to.k + KeyCodePlace(type, t, group.first).byte, group.key_units);
        StoreKvScale(type, to.k + KeyScaleOffset(type, d, t, group.index),
                     LoadKvScale(type, from.k + KeyScaleOffset(type, d, s, group.index)));
        CopyValueCodes(type, d, group, from.v, s, to.v, t);
      });
      break;
  }
}

void GatherTiles(KvType type, int64_t d, std::span<const TileGather> tiles) {
  KVASIR_CHECK(tiles.size() <= kMaxTileGathers);
  switch (type) {
    case KvType::kF32: GatherF32(d, tiles); break;
    case KvType::kBF16:
    case KvType::kF16: Gather16(d, tiles); break;
    case KvType::kI8:
    case KvType::kI4: GatherCodes(type, d, tiles); break;
  }
}

}  // namespace kvasir
