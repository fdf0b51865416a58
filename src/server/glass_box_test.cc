#include "server/glass_box.h"

#include <gtest/gtest.h>

#include <random>

namespace kvasir::server {
namespace {

TEST(BlockMapTest, LettersSayWhoHoldsABlock) {
  BlockMap map;
  EXPECT_EQ(map.Draw({}, 4), "....");
  EXPECT_EQ(map.Draw({{.id = 7, .holders = 1}, {.id = 3, .holders = 2}, {.id = 9, .known = true}}, 4), "usc.");
}

TEST(BlockMapTest, ABlockKeepsItsPlaceForAsLongAsItIsInUse) {
  BlockMap map;
  EXPECT_EQ(map.Draw({{.id = 1, .holders = 1}, {.id = 2, .holders = 2}, {.id = 3, .holders = 1}}, 4), "usu.");
  EXPECT_EQ(map.Draw({{.id = 3, .holders = 2}, {.id = 2, .holders = 1}}, 4), ".us.");
  EXPECT_EQ(map.Draw({{.id = 3, .holders = 2}, {.id = 8, .holders = 1}, {.id = 2}}, 4), "ucs.");  // 8 in the free place
  EXPECT_EQ(map.Draw({{.id = 8}}, 4), "c...");
  EXPECT_EQ(map.Draw({{.id = 1, .holders = 1}, {.id = 8}}, 4), "cu..");
}

TEST(BlockMapTest, GrowsWithItsCache) {
  BlockMap map;
  EXPECT_EQ(map.Draw({{.id = 1, .holders = 1}}, 1), "u");
  EXPECT_EQ(map.Draw({{.id = 1, .holders = 1}, {.id = 2, .holders = 2}}, 1), "us");  // more than were told
  EXPECT_EQ(map.Draw({{.id = 2, .holders = 2}}, 4), ".s..");
}

TEST(BlockMapTest, AtRandomEveryBlockHasOnePlaceOfItsOwn) {
  std::mt19937 random(5);
  BlockMap map;
  constexpr int64_t kTotal = 40;
  std::unordered_map<int32_t, size_t> place;
  std::vector<KvBlock> blocks;
  for (int step = 0; step < 500; ++step) {
    std::erase_if(blocks, [&](const KvBlock&) { return random() % 5 == 0; });
    for (int32_t id = 0; id < 60 && blocks.size() < kTotal; ++id) {
      const bool there = std::ranges::any_of(blocks, [&](const KvBlock& block) { return block.id == id; });
      if (!there && random() % 8 == 0) blocks.push_back({.id = id, .holders = 1});
    }
    const std::string drawn = map.Draw(blocks, kTotal);
    ASSERT_EQ(drawn.size(), static_cast<size_t>(kTotal));
    ASSERT_EQ(static_cast<size_t>(std::ranges::count(drawn, 'u')), blocks.size());
    // Who is alone in the next picture shows where it stands.
    if (blocks.empty()) continue;
    const KvBlock one = blocks[random() % blocks.size()];
    for (KvBlock& block : blocks) block.holders = block.id == one.id ? 2 : 1;
    const size_t at = map.Draw(blocks, kTotal).find('s');
    ASSERT_EQ(drawn[at], 'u');
    for (KvBlock& block : blocks) block.holders = 1;
    ASSERT_EQ(map.Draw(blocks, kTotal), drawn);
  }
}

TEST(ShortenMapTest, TheLiveliestOfSeveral) {
  EXPECT_EQ(ShortenMap("", 3), "");
  EXPECT_EQ(ShortenMap("..c.u.s", 1), "..c.u.s");
  EXPECT_EQ(ShortenMap("..c.u.s.", 2), ".cus");
  EXPECT_EQ(ShortenMap("cus...c", 3), "s.c");
  EXPECT_EQ(ShortenMap("uc", 100), "u");
}

TEST(GlassBoxTest, ThereIsNoPictureBeforeTheFirst) {
  const GlassBox box;
  EXPECT_EQ(box.Latest().number, 0);
  EXPECT_EQ(box.Latest().json, "");
}

}  // namespace
}  // namespace kvasir::server
