// Moving slots between the tiles of KV caches (KvView has their layout).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/views.h"

namespace kvasir {

/// A tile of keys and the tile of their values.
template <typename Byte>
struct KvTiles {
  Byte* k = nullptr;
  Byte* v = nullptr;
};

/// Copies key and value of slot `s` (0 … 15) to slot `t` of other tiles or the same, codes with their scales. Bits of
/// other slots stay as they are.
void CopyTileSlot(KvType type, int64_t d, KvTiles<const std::byte> from, int64_t s, KvTiles<std::byte> to, int64_t t);

/// A tile to be filled: its slot t with slot `slots[t]` of from[t].
struct TileGather {
  KvTiles<std::byte> to;
  KvTiles<const std::byte> from[kTileTokens];
  int32_t slots[kTileTokens];
};

inline constexpr size_t kMaxTileGathers = 16;

/// Fills up to kMaxTileGathers tiles. Line by line through all of them, since tiles that are gathered together mostly
/// take neighbouring slots, whose keys share lines. No `to` may be among the tiles that are read.
void GatherTiles(KvType type, int64_t d, std::span<const TileGather> tiles);

}  // namespace kvasir
