#include "apps/serve_load/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvasir::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LoadSummary Figures(double tokens_per_s, double ttft) {
  LoadSummary s{.requests = 1, .served = 1};
  s.answer_tokens_per_s = tokens_per_s;
  s.ttft_ms = {.count = 1, .p50 = ttft};
  return s;
}

TEST(CompareServers, TurnsAlternateAndRatiosAreOfPairs) {
  std::vector<int> order;
  const auto comparison = CompareServers(6, [&](int server, int pair) -> Result<LoadSummary> {
    order.push_back(server);
    // The machine gets faster and faster; the first server always writes twice as fast as the second.
    const double speed = 10.0 * (pair + 1) * (server == 0 ? 2 : 1);
    return Figures(speed, server == 0 ? 30 : 40);
  });
  ASSERT_TRUE(comparison.ok());
  EXPECT_THAT(order, ElementsAre(0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0));
  EXPECT_EQ(comparison->pairs.size(), 6u);
  EXPECT_EQ(comparison->pairs[1].first.answer_tokens_per_s, 40);
  ASSERT_EQ(comparison->figures.size(), 2u);  // only these are above 0 everywhere
  const ComparedFigure& tokens = comparison->figures[0];
  EXPECT_EQ(tokens.key, "answer_tokens_per_s");
  EXPECT_TRUE(tokens.more_is_better);
  EXPECT_DOUBLE_EQ(tokens.first, 70);
  EXPECT_DOUBLE_EQ(tokens.second, 35);
  EXPECT_DOUBLE_EQ(tokens.ratio.median, 2);
  EXPECT_DOUBLE_EQ(tokens.ratio.low, 2);
  EXPECT_DOUBLE_EQ(tokens.ratio.high, 2);
  EXPECT_EQ(comparison->figures[1].key, "ttft_ms_median");
  EXPECT_DOUBLE_EQ(comparison->figures[1].ratio.median, 0.75);
}

TEST(CompareServers, ARunThatServedNothingIsAnError) {
  const auto comparison = CompareServers(2, [](int server, int) -> Result<LoadSummary> {
    if (server == 0) return Figures(1, 1);
    LoadSummary s{.requests = 3, .failed = 3};
    s.failures["status 429"] = {3, "slow down"};
    return s;
  });
  EXPECT_THAT(comparison.status().message(), HasSubstr("the second server served nothing in pair 1: status 429: slow"));
}

}  // namespace
}  // namespace kvasir::apps
