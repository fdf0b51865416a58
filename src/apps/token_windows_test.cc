#include "apps/token_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace kvasir::apps {
namespace {

using ::testing::ElementsAre;

TEST(StridedWindows, ScoresEveryTokenButTheFirstExactlyOnce) {
  for (int64_t tokens = 1; tokens <= 40; ++tokens) {
    for (int64_t context = 2; context <= 12; ++context) {
      for (int64_t stride = 1; stride < context; ++stride) {
        std::multiset<int64_t> scored;
        for (const TokenWindow& w : StridedWindows(tokens, context, stride)) {
          ASSERT_LE(w.end - w.begin, context);
          ASSERT_GE(w.first_scored, 1);
          for (int64_t i = w.begin + w.first_scored; i < w.end; ++i) scored.insert(i);
        }
        std::multiset<int64_t> all;
        for (int64_t i = 1; i < tokens; ++i) all.insert(i);
        ASSERT_EQ(scored, all) << tokens << " " << context << " " << stride;
      }
    }
  }
}

TEST(StridedWindows, AreThoseOfTheGuide) {
  // begin 0, 4, 8 …; trg_len is what no earlier window had; the guide stops at the window that reaches the end.
  EXPECT_THAT(StridedWindows(14, 8, 4),
              ElementsAre(TokenWindow{0, 8, 1}, TokenWindow{4, 12, 4}, TokenWindow{8, 14, 4}));
  EXPECT_THAT(StridedWindows(8, 8, 4), ElementsAre(TokenWindow{0, 8, 1}));
}

TEST(StridedWindows, WithoutOverlapCannotScoreTheFirstTokenOfAWindow) {
  EXPECT_THAT(StridedWindows(9, 4, 4), ElementsAre(TokenWindow{0, 4, 1}, TokenWindow{4, 8, 1}));
  EXPECT_TRUE(StridedWindows(1, 4, 4).empty());
  EXPECT_TRUE(StridedWindows(0, 4, 2).empty());
}

TEST(ChunkWindows, AreWholeAndScoredInTheSecondHalf) {
  EXPECT_THAT(ChunkWindows(19, 8), ElementsAre(TokenWindow{0, 8, 5}, TokenWindow{8, 16, 5}));
  EXPECT_TRUE(ChunkWindows(7, 8).empty());
}

}  // namespace
}  // namespace kvasir::apps
