// Who runs in the next step, and on how much.
#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/scheduler_testing.h"

namespace kvasir {
namespace {

using testing::Cache;
using testing::Driver;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::P;
using ::testing::SizeIs;
using testing::Sizes;

TEST(SchedulerTest, PromptsFillWhatAnswersLeave) {
  const auto cache = Cache(1024);
  Driver driver(*cache, {.max_running = 4, .step_tokens = 10});
  const LaneId a = driver.Add(12);
  const LaneId b = driver.Add(15, 500);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 10}));
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 2}, P{b, 8}));
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{b, 7}));
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{b, 1}));
  const LaneId c = driver.Add(3, 900);  // joins at once
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{b, 1}, P{c, 3}));
  driver.scheduler().Remove(a);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{b, 1}, P{c, 1}));
}

TEST(SchedulerTest, WithoutChunksAnswersWaitForPrompts) {
  const auto cache = Cache(1024);
  Driver driver(*cache, {.max_running = 4, .step_tokens = 10, .chunk_prompts = false});
  const LaneId a = driver.Add(12);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 12}));
  const LaneId b = driver.Add(100, 500);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{b, 100}));
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{b, 1}));
}

TEST(SchedulerTest, AStaticBatchEndsBeforeTheNextBegins) {
  const auto cache = Cache(1024);
  Driver driver(*cache, {.batching = Batching::kStatic, .max_running = 2, .step_tokens = 64});
  const LaneId a = driver.Add(5);
  const LaneId b = driver.Add(6, 100);
  const LaneId c = driver.Add(7, 200);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 5}, P{b, 6}));
  driver.scheduler().Remove(a);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{b, 1}));
  driver.scheduler().Remove(b);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{c, 7}));
}

TEST(SchedulerTest, ADynamicBatchWaitsUntilItIsFullOrItsTimeIsOver) {
  const auto cache = Cache(1024);
  Driver driver(*cache, {.batching = Batching::kDynamic, .max_running = 3, .step_tokens = 64, .batch_wait_ms = 1e6});
  const LaneId a = driver.Add(4);
  EXPECT_THAT(driver.Step().inputs, IsEmpty());
  EXPECT_GT(driver.scheduler().Next().wait_ms, 9e5);
  const LaneId b = driver.Add(4, 100);
  EXPECT_THAT(driver.Step().inputs, IsEmpty());
  const LaneId c = driver.Add(4, 200);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P(a, 4), P(b, 4), P(c, 4)));
  driver.Add(4, 300);
  driver.scheduler().Remove(a);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P(b, 1), P(c, 1)));  // nobody joins
  driver.scheduler().Remove(b);
  driver.scheduler().Remove(c);
  EXPECT_GT(driver.scheduler().Next().wait_ms, 0);

  Driver impatient(*cache, {.batching = Batching::kDynamic, .max_running = 3, .step_tokens = 64, .batch_wait_ms = 0});
  const LaneId d = impatient.Add(4);
  EXPECT_THAT(Sizes(impatient.Step()), ElementsAre(P(d, 4)));
}

TEST(SchedulerTest, PromptsGetTheTimeThatAnswersCanSpare) {
  const auto cache = Cache(4096);
  Driver driver(*cache, {.max_running = 4, .step_tokens = 256, .slowest_answers = 2});
  const LaneId a = driver.Add(4);
  driver.Step(100);
  for (int i = 0; i < 60; ++i) driver.Step(100);  // an answer by itself takes 100 ms
  driver.Add(1000, 1000);
  // Carefully at first; a token of a prompt takes 4.1 ms, and whole groups of six with the answer's are run.
  std::vector<size_t> pieces;
  for (int i = 0; i < 30; ++i) {
    const auto step = driver.Step(100, 4.1);
    ASSERT_THAT(step.inputs, SizeIs(2));
    pieces.push_back(step.inputs[1].tokens.size());
  }
  EXPECT_EQ(pieces[0], 4u);
  EXPECT_EQ(pieces[1], 17u);
  for (size_t i = 10; i < pieces.size(); ++i) EXPECT_EQ(pieces[i], 23u);
  driver.scheduler().Remove(a);
  EXPECT_EQ(driver.Step(1000).inputs[0].tokens.size(), 256u);  // nobody waits
}

TEST(SchedulerTest, PromptsShareTheirTimeWithPassesBetweenTheSteps) {
  const auto cache = Cache(4096);
  Driver driver(*cache, {.max_running = 4, .step_tokens = 256, .slowest_answers = 3});
  Scheduler& scheduler = driver.scheduler();
  EXPECT_EQ(scheduler.PassTokens(100), 100);  // nobody waits
  driver.Add(4);
  driver.Step(100);
  EXPECT_EQ(scheduler.PassTokens(100), 4);  // nothing is known yet
  for (int i = 0; i < 20; ++i) driver.Step(100);
  const LaneId b = driver.Add(900, 1000);
  for (int i = 0; i < 10; ++i) driver.Step(100, 4.1);
  EXPECT_EQ(driver.Step(100, 4.1).inputs.at(1).tokens.size(), 47u);
  scheduler.ShareTime(true);
  EXPECT_EQ(driver.Step(100, 4.1).inputs.at(1).tokens.size(), 23u);
  EXPECT_EQ(scheduler.PassTokens(100), 4);  // a pass takes 100 ms by itself
  scheduler.Remove(b);
  EXPECT_NEAR(static_cast<double>(scheduler.PassTokens(100)), 24, 1);
  EXPECT_EQ(scheduler.PassTokens(10), 10);
}

TEST(SchedulerTest, AnswersRunAloneNowAndThenToSeeWhatTheyTake) {
  const auto cache = Cache(8192);
  Driver driver(*cache, {.max_running = 4, .step_tokens = 256, .slowest_answers = 2});
  driver.Add(4);
  driver.Step(100);
  driver.Add(1000, 1000);
  EXPECT_THAT(driver.Step(100).inputs, SizeIs(1));  // nothing is known yet
  int beside = 0;
  while (driver.Step(200).inputs.size() == 2) ++beside;
  EXPECT_EQ(beside, 64);
  EXPECT_THAT(driver.Step(200).inputs, SizeIs(2));
}

TEST(SchedulerTest, TheMoreImportantComeFirst) {
  const auto cache = Cache(1024);
  Driver driver(*cache, {.max_running = 1, .step_tokens = 64});
  const LaneId low = driver.Add(5);
  const LaneId high = driver.Add(6, 100, 1);
  const LaneId higher = driver.Add(7, 200, 2);
  for (const LaneId lane : {higher, high, low}) {
    EXPECT_EQ(driver.Step().inputs.at(0).lane, lane);
    driver.scheduler().Remove(lane);
  }
  EXPECT_THAT(driver.Step().inputs, IsEmpty());
}

TEST(SchedulerTest, ClientsTakeTurns) {
  const auto cache = Cache(1024);
  Driver driver(*cache, {.max_running = 3, .step_tokens = 64});
  std::vector<LaneId> of_one;
  for (int32_t i = 0; i < 5; ++i) of_one.push_back(driver.Add(4, 1 + i * 100, 0, 1));
  const LaneId other = driver.Add(4, 900, 0, 2);
  const LaneId third = driver.Add(4, 1000, 0, 3);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P(of_one[0], 4), P(other, 4), P(third, 4)));
  driver.scheduler().Remove(other);
  const LaneId again = driver.Add(4, 1100, 0, 2);
  // Who has nothing running comes before who came first.
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P(of_one[0], 1), P(third, 1), P(again, 4)));
  driver.scheduler().Remove(of_one[0]);
  const LaneId urgent = driver.Add(4, 1200, 1, 2);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P(third, 1), P(again, 1), P(urgent, 4)));  // priority first
  driver.scheduler().Remove(third);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P(urgent, 1), P(again, 1), P(of_one[1], 4)));
}

TEST(SchedulerTest, ForksShareBlocksOrWait) {
  const auto cache = Cache(1024);
  SchedulerOptions options{.max_running = 2, .step_tokens = 64, .max_waiting = 1};
  Scheduler scheduler(*cache, 1, options);
  std::vector<TokenId> text(20, 3);
  std::vector<TokenId> others[2] = {text, text};
  const LaneId a = *scheduler.Add({.tokens = &text, .scope = "s"});
  Scheduler::Step step = scheduler.Next();
  cache->Commit(step.inputs[0].seq, 20);
  scheduler.Ran(step, 1);
  for (auto& other : others) other.push_back(9);
  text.push_back(8);
  const LaneId b = scheduler.Fork(a, {.tokens = &others[0], .scope = "s"});
  const LaneId c = scheduler.Fork(a, {.tokens = &others[1], .scope = "s"});
  EXPECT_EQ(scheduler.counts().running, 2);
  EXPECT_EQ(scheduler.counts().waiting, 1);
  step = scheduler.Next();
  EXPECT_THAT(Sizes(step), ElementsAre(P{a, 1}, P{b, 1}));
  for (const ScheduledInput& input : step.inputs) cache->Commit(input.seq, 1);
  scheduler.Ran(step, 1);
  scheduler.Remove(a);
  step = scheduler.Next();  // b has no new token; c begins behind the block that a has published
  ASSERT_FALSE(step.inputs.empty());
  EXPECT_EQ(step.inputs.back().lane, c);
  EXPECT_EQ(step.inputs.back().tokens.size(), 5);
}

TEST(SchedulerTest, NoMoreWaitThanMay) {
  const auto cache = Cache(1024);
  Scheduler scheduler(*cache, 1, {.max_running = 1, .max_waiting = 2});
  const std::vector<TokenId> text(4, 1);
  EXPECT_TRUE(scheduler.Add({.tokens = &text}).ok());
  EXPECT_TRUE(scheduler.Add({.tokens = &text}).ok());
  const auto third = scheduler.Add({.tokens = &text});
  ASSERT_FALSE(third.ok());
  EXPECT_EQ(third.status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace kvasir
