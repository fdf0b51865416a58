#include "apps/serve_load/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace kvasir::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A request served from `start` on whose pieces come so many seconds later; its stream ends with the last one.
RequestOutcome Served(double start, std::vector<double> pieces, int64_t tokens = -1) {
  RequestOutcome outcome;
  outcome.request.at_s = start;
  outcome.request.prompt_tokens = 10;
  outcome.request.answer_tokens = static_cast<int64_t>(pieces.size());
  outcome.start_s = start;
  outcome.end_s = start + pieces.back();
  outcome.answer.end_s = pieces.back();
  outcome.answer.piece_s = std::move(pieces);
  outcome.answer.answer_tokens = tokens;
  return outcome;
}

RequestOutcome Lost(Fate fate, double start, double end, int status = 0) {
  RequestOutcome outcome;
  outcome.fate = fate;
  outcome.http_status = status;
  outcome.request.at_s = start;
  outcome.detail = "what happened at " + std::to_string(start);
  outcome.start_s = start;
  outcome.end_s = end;
  outcome.answer.piece_s = {0.1};
  return outcome;
}

TEST(Distribution, HasPercentilesThatLieBetweenValues) {
  std::vector<double> values(101);
  std::iota(values.rbegin(), values.rend(), 0.0);
  const Distribution d = DistributionOf(values);
  EXPECT_EQ(d.count, 101);
  EXPECT_DOUBLE_EQ(d.mean, 50);
  EXPECT_NEAR(d.sd, 29.300170, 1e-6);
  EXPECT_DOUBLE_EQ(d.p50, 50);
  EXPECT_DOUBLE_EQ(d.p90, 90);
  EXPECT_DOUBLE_EQ(d.p95, 95);
  EXPECT_DOUBLE_EQ(d.p99, 99);
  EXPECT_DOUBLE_EQ(d.max, 100);
  // As numpy.percentile([1, 2, 10], 90) has it.
  EXPECT_DOUBLE_EQ(DistributionOf({10, 1, 2}).p90, 8.4);
  EXPECT_EQ(DistributionOf({}).count, 0);
  EXPECT_DOUBLE_EQ(DistributionOf({7}).p99, 7);
  EXPECT_DOUBLE_EQ(DistributionOf({7}).sd, 0);
}

TEST(Summary, LatenciesAreThoseOfTheirDefinitions) {
  // Five tokens in three pieces.
  const Latencies l = LatenciesOf(Served(3, {0.2, 0.3, 0.6}, 5));
  EXPECT_DOUBLE_EQ(l.ttft, 200);
  EXPECT_DOUBLE_EQ(*l.tpot, 100);
  EXPECT_DOUBLE_EQ(l.e2e, 600);
  EXPECT_FALSE(LatenciesOf(Served(0, {0.2}, 1)).tpot);
  const LoadSummary s = Summarize({Served(3, {0.2, 0.3, 0.6}, 5)}, {});
  EXPECT_EQ(s.itl_ms.count, 2);
  EXPECT_DOUBLE_EQ(s.itl_ms.mean, 200);
  EXPECT_DOUBLE_EQ(s.itl_ms.max, 300);
  EXPECT_DOUBLE_EQ(s.duration_s, 0.6);
  EXPECT_FALSE(s.good_per_s);
}

TEST(Summary, WhatWasNotServedAddsNothing) {
  RequestOutcome slow = Served(0, {1, 9}, 2);
  slow.request.slow = true;
  RequestOutcome waited = Served(2, {0.5, 1}, 2);
  waited.request.at_s = 1.75;
  waited.request.answer_tokens = 3;
  waited.answer.prompt_tokens = 12;
  waited.answer.cached_tokens = 8;
  const LoadSummary s = Summarize(
      {waited, slow, Lost(Fate::kStatus, 1, 1.5, 429), Lost(Fate::kStatus, 2, 2.5, 429), Lost(Fate::kTimeout, 0, 10),
       Lost(Fate::kHungUp, 0, 0.1), Lost(Fate::kBroken, 0, 0.1), Lost(Fate::kStatus, 2, 2.5, 500)},
      {});
  EXPECT_EQ(s.requests, 8);
  EXPECT_EQ(s.served, 2);
  EXPECT_EQ(s.slow, 1);
  EXPECT_EQ(s.hung_up, 1);
  EXPECT_EQ(s.failed, 5);
  EXPECT_EQ(s.failures.at("status 429").first, 2);
  EXPECT_EQ(s.failures.at("status 429").second, "what happened at 1.000000");
  EXPECT_EQ(s.failures.at("status 500").first, 1);
  EXPECT_EQ(s.failures.at("timeout").first, 1);
  EXPECT_EQ(s.failures.at("broken stream").first, 1);
  EXPECT_EQ(s.failures.size(), 4u);
  EXPECT_EQ(s.prompt_tokens, 22);
  EXPECT_EQ(s.cached_tokens, 8);
  EXPECT_EQ(s.answer_tokens, 4);
  EXPECT_EQ(s.short_answers, 1);
  EXPECT_EQ(s.counted_by_piece, 0);
  EXPECT_DOUBLE_EQ(s.duration_s, 10);
  EXPECT_DOUBLE_EQ(s.requests_per_s, 0.2);
  EXPECT_DOUBLE_EQ(s.answer_tokens_per_s, 0.4);
  EXPECT_DOUBLE_EQ(s.tokens_per_s, 2.6);
  EXPECT_EQ(s.ttft_ms.count, 1);
  EXPECT_DOUBLE_EQ(s.ttft_ms.max, 500);
  EXPECT_DOUBLE_EQ(s.late_ms.max, 250);
  EXPECT_EQ(s.peak_running, 5);  // at 2 s
}

TEST(Summary, OfNothing) {
  const LoadSummary s = Summarize({}, {});
  EXPECT_EQ(s.requests, 0);
  EXPECT_EQ(s.requests_per_s, 0);
  EXPECT_EQ(s.ttft_ms.count, 0);
}

TEST(Goodput, CountsRequestsThatMeetEveryLimit) {
  const std::vector<RequestOutcome> outcomes = {Served(0, {0.1, 0.2}, 2), Served(0, {0.3, 0.35}, 2),
                                                Served(0, {0.1, 4}, 2), Served(0, {0.2}, 1)};
  const auto good = [&](std::string_view limits) {
    const auto parsed = ParseGoodput(limits);
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    return *Summarize(outcomes, *parsed).good_per_s * 4;  // it takes four seconds
  };
  EXPECT_DOUBLE_EQ(good("ttft:1000"), 4);
  EXPECT_DOUBLE_EQ(good("ttft:200"), 3);
  EXPECT_DOUBLE_EQ(good("tpot:99.9"), 2);
  EXPECT_DOUBLE_EQ(good("ttft:200,tpot:101"), 2);
  EXPECT_DOUBLE_EQ(good("e2el:300"), 2);
  EXPECT_DOUBLE_EQ(good("e2e:300,ttft:150,tpot:1000"), 1);
  EXPECT_DOUBLE_EQ(good("ttft:0"), 0);
}

TEST(Goodput, WrongLimitsAreNamed) {
  for (const char* text : {"ttft", "ttft:", "ttft:x", "ttft:-1", "itl:5", "ttft:1,ttft:2", "e2e:1,e2el:2", ":5", ",",
                           "ttft:1,,tpot:2", "ttft:nan"}) {
    EXPECT_THAT(ParseGoodput(text).status().message(), HasSubstr("is none of ttft:MS")) << text;
  }
  EXPECT_THAT(ParseGoodput("").status().message(), HasSubstr("no limit"));
}

TEST(Timeline, AddsUpToTheLoad) {
  const std::vector<RequestOutcome> outcomes = {Served(1, {1, 2, 3, 4}, 8), Served(2, {0.5, 1}, 2),
                                                Lost(Fate::kTimeout, 1, 2)};
  const Timeline timeline = TimelineOf(outcomes, 4);
  EXPECT_DOUBLE_EQ(timeline.step_s, 1);
  EXPECT_THAT(timeline.running, ElementsAre(2, 2, 1, 1));
  EXPECT_THAT(timeline.tokens_per_s, ElementsAre(0, 3, 3, 4));  // the last piece comes at the very end
  EXPECT_EQ(TimelineOf({}, 3).running.size(), 3u);
}

}  // namespace
}  // namespace kvasir::apps
