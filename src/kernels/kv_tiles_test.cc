#include "kernels/kv_tiles.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/attention_test_util.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

using testing::kKvTypes;

TEST(KvTiles, ASlotArrivesAndItsNeighboursStay) {
  const KernelSet* const set = AvailableKernelSets().front();
  for (KvType type : kKvTypes) {
    for (int32_t d : {1, 2, 3, 15, 16, 31, 32, 33, 35, 64, 67, 512}) {
      testing::Sequence from({.type = type, .length = 32, .kv_heads = 2, .head_dim = d}, *set, 1);
      testing::Sequence to({.type = type, .length = 32, .kv_heads = 2, .head_dim = d}, *set, 2);
      const testing::Sequence before({.type = type, .length = 32, .kv_heads = 2, .head_dim = d}, *set, 2);
      const KvView a = from.cache().View(32);
      const KvView b = to.cache().View(32);
      const KvView old = before.cache().View(32);
      const std::pair<int64_t, int64_t> moves[] = {{0, 3}, {5, 4}, {15, 0}, {6, 6}};
      for (const auto& [s, t] : moves)
        CopyTileSlot(type, d, {a.k_tile(1, 1), a.v_tile(1, 1)}, s, {b.k_tile(1, 0), b.v_tile(1, 0)}, t);
      for (int64_t slot = 0; slot < 16; ++slot) {
        const auto* const move = std::ranges::find(moves, slot, &std::pair<int64_t, int64_t>::second);
        const bool moved = move != std::end(moves);
        for (int64_t i = 0; i < d; ++i) {
          const float key = moved ? ref::KeyAt(a, 1, 16 + move->first, i) : ref::KeyAt(old, 1, slot, i);
          const float value = moved ? ref::ValueAt(a, 1, 16 + move->first, i) : ref::ValueAt(old, 1, slot, i);
          ASSERT_EQ(ref::KeyAt(b, 1, slot, i), key) << static_cast<int>(type) << " " << d << " " << slot;
          ASSERT_EQ(ref::ValueAt(b, 1, slot, i), value) << static_cast<int>(type) << " " << d << " " << slot;
        }
      }
    }
  }
}

TEST(KvTiles, TilesAreGatheredFromAnySlots) {
  const KernelSet* const set = AvailableKernelSets().front();
  for (KvType type : kKvTypes) {
    for (int32_t d : {1, 2, 3, 15, 16, 31, 32, 33, 35, 64, 67, 512}) {
      const testing::Sequence from({.type = type, .length = 160, .kv_heads = 2, .head_dim = d}, *set, 1);
      const testing::TestCache to(type, 2, d, 3, 48);
      const KvView a = from.cache().View(160);
      const KvView b = to.View(48);
      testing::Random random(3);
      TileGather gathers[3];
      int64_t slots[48];
      for (int64_t i = 0; i < 48; ++i) {
        slots[i] = random.Below(160);
        TileGather& gather = gathers[i / 16];
        gather.to = {b.k_tile(1, i / 16), b.v_tile(1, i / 16)};
        gather.from[i % 16] = {a.k_tile(1, slots[i] / 16), a.v_tile(1, slots[i] / 16)};
        gather.slots[i % 16] = static_cast<int32_t>(slots[i] % 16);
      }
      GatherTiles(type, d, gathers);
      for (int64_t i = 0; i < 48; ++i) {
        for (int64_t c = 0; c < d; ++c) {
          ASSERT_EQ(ref::KeyAt(b, 1, i, c), ref::KeyAt(a, 1, slots[i], c)) << static_cast<int>(type) << " " << d;
          ASSERT_EQ(ref::ValueAt(b, 1, i, c), ref::ValueAt(a, 1, slots[i], c)) << static_cast<int>(type) << " " << d;
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
