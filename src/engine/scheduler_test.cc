#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <set>

#include "kv/testing.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr KvLayerShape kLayer[] = {{.kv_heads = 1, .head_dim = 2}};

std::unique_ptr<KvCache> Cache(int64_t pool_tokens, int64_t sequences = 8) {
  auto cache = MakeKvCache(CacheKind::kPaged, {.layers = kLayer,
                                               .max_tokens = 1024,
                                               .max_sequences = sequences,
                                               .paged = {.block_tokens = 16, .pool_tokens = pool_tokens}});
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  return *std::move(cache);
}

/// Texts, and a scheduler whose steps are run by committing them.
class Driver {
 public:
  Driver(KvCache& cache, const SchedulerOptions& options) : cache_(cache), scheduler_(cache, 1, options) {}

  LaneId Add(int32_t tokens, int32_t first = 1, int32_t priority = 0, uint64_t client = 0) {
    std::vector<TokenId>& text = texts_.emplace_back(static_cast<size_t>(tokens));
    std::iota(text.begin(), text.end(), first);
    const auto lane =
        scheduler_.Add({.tokens = &text, .planned_length = 1024, .scope = "s", .priority = priority, .client = client});
    EXPECT_TRUE(lane.ok()) << lane.status().message();
    text_of_[*lane] = &text;
    return *lane;
  }

  /// Runs a step, which leaves a mark of each token in its slot; every complete text gets a token.
  Scheduler::Step Step(double milliseconds = 1, double for_prompt_token = 0) {
    Scheduler::Step step = scheduler_.Next();
    for (const ScheduledInput& input : step.inputs) {
      const std::vector<TokenId>& text = *text_of_[input.lane];
      const auto at = static_cast<size_t>(cache_.NextPosition(input.seq));
      EXPECT_LE(at + input.tokens.size(), text.size());
      EXPECT_EQ(input.last, at + input.tokens.size() == text.size());
      EXPECT_TRUE(std::equal(input.tokens.begin(), input.tokens.end(), text.begin() + static_cast<ptrdiff_t>(at)));
      const KvView view = cache_.View(input.seq, 0);
      for (size_t i = 0; i < input.tokens.size(); ++i) {
        kv_testing::WriteSlot(view, 0, static_cast<int64_t>(at + i), input.tokens[i]);
      }
      for (size_t i = 0; i < at; ++i) EXPECT_TRUE(kv_testing::HoldsTag(view, 0, static_cast<int64_t>(i), text[i]));
      EXPECT_TRUE(kv_testing::ValuesAreZero(view, view.length, RoundUp(view.length, 16)));
      cache_.Commit(input.seq, static_cast<int64_t>(input.tokens.size()));
      run_tokens_ += static_cast<int64_t>(input.tokens.size());
    }
    for (const ScheduledInput& input : step.inputs) {
      if (!input.answer) milliseconds += for_prompt_token * static_cast<double>(input.tokens.size());
    }
    scheduler_.Ran(step, milliseconds);
    for (const ScheduledInput& input : step.inputs) {
      if (input.last) text_of_[input.lane]->push_back(7000 + static_cast<int32_t>(input.lane));
    }
    return step;
  }

  Scheduler& scheduler() { return scheduler_; }
  size_t Length(LaneId lane) { return text_of_[lane]->size(); }
  int64_t run_tokens() const { return run_tokens_; }

 private:
  KvCache& cache_;
  Scheduler scheduler_;
  std::deque<std::vector<TokenId>> texts_;
  std::map<LaneId, std::vector<TokenId>*> text_of_;
  int64_t run_tokens_ = 0;
};

std::vector<std::pair<LaneId, size_t>> Sizes(const Scheduler::Step& step) {
  std::vector<std::pair<LaneId, size_t>> sizes;
  for (const ScheduledInput& input : step.inputs) sizes.emplace_back(input.lane, input.tokens.size());
  return sizes;
}
using P = std::pair<LaneId, size_t>;

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
  // Carefully at first; a token of a prompt takes 5 ms.
  std::vector<size_t> pieces;
  for (int i = 0; i < 30; ++i) {
    const auto step = driver.Step(100, 5);
    ASSERT_THAT(step.inputs, SizeIs(2));
    pieces.push_back(step.inputs[1].tokens.size());
  }
  EXPECT_EQ(pieces[0], 4u);
  EXPECT_EQ(pieces[1], 16u);
  for (size_t i = 2; i < pieces.size(); ++i) EXPECT_EQ(pieces[i], 20u);
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
  for (int i = 0; i < 10; ++i) driver.Step(100, 5);
  EXPECT_EQ(driver.Step(100, 5).inputs.at(1).tokens.size(), 40u);
  scheduler.ShareTime(true);
  EXPECT_EQ(driver.Step(100, 5).inputs.at(1).tokens.size(), 20u);
  EXPECT_EQ(scheduler.PassTokens(100), 4);  // a pass takes 100 ms by itself
  scheduler.Remove(b);
  EXPECT_EQ(scheduler.PassTokens(100), 20);
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

TEST(SchedulerTest, TheLastIsTakenOutWhereBlocksRunOutAndComesBack) {
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

TEST(SchedulerTest, WhatCannotFitIsSaid) {
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

TEST(SchedulerTest, WhatCannotFitDisturbsNobody) {
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

TEST(SchedulerTest, SaysSoWhereNotEvenAnEmptySequenceFits) {
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

TEST(SchedulerTest, NobodyIsLetInBeforeThereIsRoomForHisText) {
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

TEST(SchedulerTest, TheMoreImportantGetRoomFromOthers) {
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

TEST(SchedulerTest, BlocksThatWereKeptAreNotRunAgain) {
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

TEST(SchedulerTest, WhoHangsUpWhileHisBlocksAreKeptGivesTheirMemoryBack) {
  const auto cache = Cache(64);
  Driver driver(*cache, {.max_running = 3, .step_tokens = 64, .preemption = Preemption::kSwap, .swap_bytes = 1 << 20});
  driver.Add(31);
  const LaneId b = driver.Add(31, 100);
  for (int i = 0; i < 3; ++i) driver.Step();
  EXPECT_GT(driver.scheduler().counts().swap_bytes, 0);
  driver.scheduler().Remove(b);
  EXPECT_EQ(driver.scheduler().counts().swap_bytes, 0);
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

/// Everyone ends, whatever the pool, sees what was run of its own text and nothing else, and no block is left in use.
TEST(SchedulerTest, NobodyStarves) {
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
