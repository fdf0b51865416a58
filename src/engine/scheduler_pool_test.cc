// Who is let in and who is taken out where the cache is a pool that cannot hold all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "engine/scheduler_testing.h"

namespace kvasir {
namespace {

using testing::Cache;
using testing::Driver;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::kLayer;
using testing::P;
using ::testing::SizeIs;
using testing::Sizes;

TEST(SchedulerPoolTest, TheLastIsTakenOutWhereBlocksRunOutAndComesBack) {
  const auto cache = Cache(64);  // four blocks
  Driver driver(*cache, {.max_running = 3, .step_tokens = 64});
  const LaneId a = driver.Add(31);
  const LaneId b = driver.Add(31, 100);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 31}, P{b, 31}));
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{b, 1}));  // both blocks of both are full
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}));           // and a takes b's
  EXPECT_EQ(driver.scheduler().counts().preempted, 1);
  EXPECT_EQ(driver.scheduler().counts().waiting, 1);
  const LaneId c = driver.Add(2, 300);  // nobody is let in before someone has ended
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}));
  driver.scheduler().Remove(a);
  const Scheduler::Step again = driver.Step();
  // What is left of b's blocks in the tree of prefixes is not run again.
  ASSERT_THAT(again.inputs, SizeIs(2));
  EXPECT_EQ(again.inputs[0].lane == b || again.inputs[1].lane == b, true);
  EXPECT_EQ(again.inputs[0].lane == c || again.inputs[1].lane == c, true);
  EXPECT_GT(driver.scheduler().counts().cached_tokens, 0);
}

// Many that come at once and begin alike compute it once, though none of them was there before the others.
TEST(SchedulerPoolTest, WhatOthersHaveComputedMeanwhileIsShared) {
  const auto cache = Cache(512);
  Driver driver(*cache, {.max_running = 3, .step_tokens = 32});
  const LaneId a = driver.Add(64);
  const LaneId b = driver.Add(70);
  const LaneId c = driver.Add(10, 500);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 32}));
  EXPECT_EQ(driver.scheduler().counts().running, 3);
  EXPECT_EQ(driver.scheduler().counts().cached_tokens, 0);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 32}));
  const Scheduler::Step step = driver.Step();
  EXPECT_THAT(Sizes(step), ElementsAre(P{a, 1}, P{b, 6}, P{c, 10}));
  EXPECT_EQ(step.inputs[1].cached_tokens, 64);
  EXPECT_EQ(step.inputs[2].cached_tokens, 0);
  EXPECT_EQ(driver.scheduler().counts().cached_tokens, 64);
}

TEST(SchedulerPoolTest, WhatCannotFitIsSaid) {
  const auto cache = Cache(32);
  Driver driver(*cache, {.max_running = 2, .step_tokens = 64});
  const LaneId a = driver.Add(40);
  const Scheduler::Step step = driver.scheduler().Next();
  EXPECT_THAT(step.inputs, IsEmpty());
  EXPECT_THAT(step.too_long, ElementsAre(a));
  driver.scheduler().Remove(a);
  const LaneId b = driver.Add(8, 100);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{b, 8}));
}

TEST(SchedulerPoolTest, WhatCannotFitDisturbsNobody) {
  const auto cache = Cache(64);
  Driver driver(*cache, {.max_running = 3, .step_tokens = 64});
  const LaneId a = driver.Add(10);
  const LaneId b = driver.Add(10, 100);
  driver.Step();
  const LaneId long_one = driver.Add(65, 200, 1);  // who comes before the others
  const Scheduler::Step step = driver.Step();
  EXPECT_THAT(step.too_long, ElementsAre(long_one));
  EXPECT_THAT(Sizes(step), ElementsAre(P{a, 1}, P{b, 1}));
  EXPECT_EQ(driver.scheduler().counts().preempted, 0);
}

TEST(SchedulerPoolTest, SaysSoWhereNotEvenAnEmptySequenceFits) {
  const auto cache = Cache(64, 1);
  const auto other = cache->Create();
  ASSERT_TRUE(other.ok());
  Driver driver(*cache, {.max_running = 3, .step_tokens = 64});
  const LaneId a = driver.Add(10);
  EXPECT_THAT(driver.scheduler().Next().too_long, ElementsAre(a));
  driver.scheduler().LetIn(false);
  EXPECT_THAT(driver.scheduler().Next().too_long, IsEmpty());  // it is not its turn
  driver.scheduler().LetIn(true);
  cache->Release(*other);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 10}));
}

TEST(SchedulerPoolTest, NobodyIsLetInBeforeThereIsRoomForHisText) {
  const auto cache = Cache(96);  // six blocks
  Driver driver(*cache, {.max_running = 4, .step_tokens = 64});
  const LaneId a = driver.Add(30);
  const LaneId b = driver.Add(40, 100);
  driver.Step();
  driver.Step();
  const LaneId c = driver.Add(40, 200);  // three blocks, and one is left
  const LaneId d = driver.Add(4, 300);   // who comes later does not go before it
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{b, 1}));
  EXPECT_EQ(driver.scheduler().counts().waiting, 2);
  driver.scheduler().Remove(b);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{c, 40}));
  EXPECT_EQ(driver.scheduler().counts().preempted, 0);
  const LaneId e = driver.Add(60, 400);  // for which a would have to go
  const LaneId f = driver.Add(4, 500);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{c, 1}));
  driver.scheduler().Remove(c);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{d, 4}));
  driver.scheduler().Remove(e);  // nobody waits for who has hung up
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}, P{d, 1}, P{f, 4}));
}

TEST(SchedulerPoolTest, TheMoreImportantGetRoomFromOthers) {
  const auto cache = Cache(64);
  Driver driver(*cache, {.max_running = 3, .step_tokens = 64});
  const LaneId a = driver.Add(31);
  const LaneId b = driver.Add(31, 100);
  driver.Step();
  driver.Step();
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{a, 1}));  // b was taken out, and nobody like it is let in
  const LaneId urgent = driver.Add(30, 300, 1);
  EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P{urgent, 30}));  // and a as well
  EXPECT_EQ(driver.scheduler().counts().waiting, 2);
  driver.scheduler().Remove(urgent);
  EXPECT_THAT(driver.Step().inputs, SizeIs(1));
  EXPECT_EQ(driver.scheduler().counts().preempted, 2);
  driver.scheduler().Remove(a);
  EXPECT_EQ(driver.Step().inputs.at(0).lane, b);
}

TEST(SchedulerPoolTest, BlocksThatWereKeptAreNotRunAgain) {
  // No tree of prefixes, which would know the text as well.
  const auto cache =
      *MakeKvCache(CacheKind::kPaged, {.layers = kLayer,
                                       .max_tokens = 1024,
                                       .max_sequences = 8,
                                       .paged = {.block_tokens = 16, .pool_tokens = 64, .most_prefix_blocks = 0}});
  for (const int64_t room : {int64_t{1} << 20, int64_t{100}}) {
    Driver driver(*cache, {.max_running = 3, .step_tokens = 64, .preemption = Preemption::kSwap, .swap_bytes = room});
    const LaneId a = driver.Add(30);
    const LaneId b = driver.Add(31, 100);
    for (int i = 0; i < 3; ++i) driver.Step();
    SchedulerCounts counts = driver.scheduler().counts();
    EXPECT_EQ(counts.preempted, 1);
    const bool kept = room > 100;
    EXPECT_EQ(counts.swapped_out, kept);
    EXPECT_EQ(counts.swap_refused, !kept);
    EXPECT_EQ(counts.swap_bytes, kept ? 2 * cache->BlockBytes(0) : 0);
    driver.scheduler().Remove(a);
    const int64_t before = driver.run_tokens();
    EXPECT_THAT(Sizes(driver.Step()), ElementsAre(P(b, kept ? 1 : 33)));
    EXPECT_EQ(driver.run_tokens() - before, kept ? 1 : 33);
    counts = driver.scheduler().counts();
    EXPECT_EQ(counts.swapped_in, kept);
    EXPECT_EQ(counts.swapped_out_bytes, counts.swapped_in_bytes);
    EXPECT_EQ(counts.swap_bytes, 0);
  }
}

TEST(SchedulerPoolTest, WhoHangsUpWhileHisBlocksAreKeptGivesTheirMemoryBack) {
  const auto cache = Cache(64);
  Driver driver(*cache, {.max_running = 3, .step_tokens = 64, .preemption = Preemption::kSwap, .swap_bytes = 1 << 20});
  driver.Add(31);
  const LaneId b = driver.Add(31, 100);
  for (int i = 0; i < 3; ++i) driver.Step();
  EXPECT_GT(driver.scheduler().counts().swap_bytes, 0);
  driver.scheduler().Remove(b);
  EXPECT_EQ(driver.scheduler().counts().swap_bytes, 0);
}

/// Everyone ends, whatever the pool, sees what was run of its own text and nothing else, and no block is left in use.
TEST(SchedulerPoolTest, NobodyStarves) {
  std::mt19937 rng(5);
  const auto pick = [&rng](int low, int high) {
    return low + static_cast<int>(rng() % static_cast<uint32_t>(high - low + 1));
  };
  int64_t swapped = 0;
  int64_t refused = 0;
  for (int round = 0; round < 60; ++round) {
    const auto cache = Cache(16 * pick(6, 10), pick(1, 6));
    Driver driver(*cache, {.batching = pick(0, 3) == 0 ? Batching::kStatic : Batching::kContinuous,
                           .max_running = pick(2, 6),
                           .step_tokens = pick(1, 40),
                           .chunk_prompts = pick(0, 2) != 0,
                           .preemption = pick(0, 1) == 0 ? Preemption::kRecompute : Preemption::kSwap,
                           .swap_bytes = pick(0, 1) == 0 ? 200 : 1 << 20});
    std::map<LaneId, size_t> wanted;
    int to_come = 20;
    for (int steps = 0; to_come > 0 || !wanted.empty(); ++steps) {
      ASSERT_LT(steps, 5000);
      while (to_come > 0 && pick(0, 3) == 0) {
        const int prompt = pick(1, 45);
        const LaneId lane = driver.Add(prompt, pick(0, 1) * 1000, pick(0, 2), static_cast<uint64_t>(pick(0, 2)));
        wanted[lane] = static_cast<size_t>(prompt + pick(1, 45));
        --to_come;
      }
      const Scheduler::Step step = driver.Step();
      EXPECT_THAT(step.too_long, IsEmpty());
      std::set<LaneId> seen;
      for (const ScheduledInput& input : step.inputs) EXPECT_TRUE(seen.insert(input.lane).second);
      for (const LaneId lane : seen) {
        if (driver.Length(lane) < wanted[lane]) continue;
        driver.scheduler().Remove(lane);
        wanted.erase(lane);
      }
      if (!wanted.empty() && pick(0, 20) == 0) {  // someone hangs up
        driver.scheduler().Remove(wanted.begin()->first);
        wanted.erase(wanted.begin());
      }
    }
    EXPECT_EQ(cache->BlockUse().used, 0);
    const SchedulerCounts counts = driver.scheduler().counts();
    EXPECT_EQ(counts.swap_bytes, 0);
    swapped += counts.swapped_in;
    refused += counts.swap_refused;
  }
  EXPECT_GT(swapped, 0);
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace kvasir
