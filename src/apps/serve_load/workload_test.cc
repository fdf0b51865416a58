#include "apps/serve_load/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace kvasir::apps {
namespace {

std::vector<LoadRequest> All(const WorkloadSettings& settings, int64_t most = 100000) {
  Workload workload(settings);
  std::vector<LoadRequest> requests;
  while (static_cast<int64_t>(requests.size()) < most) {
    const auto request = workload.Next();
    if (!request) break;
    EXPECT_EQ(request->index, static_cast<int64_t>(requests.size()));
    requests.push_back(*request);
  }
  return requests;
}

TEST(Workload, LengthsAreUniformAroundTheirMean) {
  const auto requests = All({.seed = 3,
                             .requests = 20000,
                             .prompt_tokens = 100,
                             .answer_tokens = 10,
                             .range_ratio = 0.5,
                             .shared_prefix = 7});
  ASSERT_EQ(requests.size(), 20000u);
  std::set<int64_t> prompts;
  std::set<int64_t> answers;
  double sum = 0;
  for (const LoadRequest& request : requests) {
    prompts.insert(request.prompt_tokens);
    answers.insert(request.answer_tokens);
    sum += static_cast<double>(request.prompt_tokens);
    EXPECT_EQ(request.at_s, 0);
    EXPECT_EQ(request.hang_up_after, -1);
    EXPECT_FALSE(request.slow);
  }
  EXPECT_EQ(*prompts.begin(), 57);
  EXPECT_EQ(*prompts.rbegin(), 157);
  EXPECT_EQ(prompts.size(), 101u);
  EXPECT_EQ(*answers.begin(), 5);
  EXPECT_EQ(*answers.rbegin(), 15);
  EXPECT_NEAR(sum / 20000, 107, 1.5);  // seven standard errors
  for (const LoadRequest& request : All({.requests = 50, .prompt_tokens = 33, .answer_tokens = 1, .range_ratio = 0})) {
    EXPECT_EQ(request.prompt_tokens, 33);
    EXPECT_EQ(request.answer_tokens, 1);
  }
  for (const LoadRequest& request :
       All({.requests = 50, .prompt_tokens = 1, .answer_tokens = 1, .range_ratio = 0.99})) {
    EXPECT_EQ(request.prompt_tokens, 1);
  }
}

TEST(Workload, TheSeedDecides) {
  const auto lengths = [](uint64_t seed, int64_t count) {
    std::vector<std::pair<int64_t, double>> result;
    for (const LoadRequest& request : All({.seed = seed, .requests = count, .range_ratio = 0.9, .rate = 5})) {
      result.emplace_back(request.prompt_tokens, request.at_s);
    }
    return result;
  };
  EXPECT_EQ(lengths(1, 100), lengths(1, 100));
  EXPECT_NE(lengths(1, 100), lengths(2, 100));
  // More requests change nothing of the first ones.
  auto longer = lengths(1, 200);
  longer.resize(100);
  EXPECT_EQ(longer, lengths(1, 100));
}

TEST(Workload, WithoutACountItHasNoEnd) { EXPECT_EQ(All({.requests = 0}, 5000).size(), 5000u); }

TEST(Workload, ATraceBringsLengthsAndTimes) {
  const std::vector<TraceRequest> trace = {{374, 44, 0}, {0, 7, 2.5}, {5, 0, 4}};
  WorkloadSettings settings{.shared_prefix = 10, .trace = &trace, .time_scale = 0.5};
  auto requests = All(settings);
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].prompt_tokens, 384);
  EXPECT_EQ(requests[0].answer_tokens, 44);
  EXPECT_EQ(requests[1].prompt_tokens, 11);  // there is no prompt of nothing
  EXPECT_EQ(requests[2].answer_tokens, 1);
  EXPECT_EQ(requests[1].at_s, 1.25);
  EXPECT_EQ(requests[2].at_s, 2);
  settings.requests = 2;
  EXPECT_EQ(All(settings).size(), 2u);
  settings.requests = 9;
  EXPECT_EQ(All(settings).size(), 3u);
  settings.rate = Arrivals::kAllAtOnce;
  EXPECT_EQ(All(settings)[2].at_s, 0);
}

TEST(Workload, SomeClientsHangUpAndSomeAreSlow) {
  const auto requests = All({.seed = 1, .requests = 20000, .answer_tokens = 4, .hang_ups = 0.25, .slow_readers = 0.5});
  std::vector<int> after(5);
  int64_t slow = 0;
  for (const LoadRequest& request : requests) {
    if (request.hang_up_after >= 0) ++after.at(static_cast<size_t>(request.hang_up_after));
    slow += request.slow;
  }
  EXPECT_NEAR(static_cast<double>(slow), 10000, 500);
  for (const int count : after) EXPECT_NEAR(count, 1000, 200);
}

}  // namespace
}  // namespace kvasir::apps
