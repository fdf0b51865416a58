// Many requests at once: everyone gets the answer of a request by itself.
#include "engine/batch_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "engine/batch_loop_testing.h"

namespace kvasir {
namespace {

using testing::Answers;
using testing::DemoOptions;
using ::testing::HasSubstr;
using testing::Ids;
using testing::LoadOrDie;
using testing::Prompt;
using testing::Request;
using testing::RunAll;

std::vector<GenerationRequest> SomeRequests() {
  std::vector<GenerationRequest> requests;
  for (int32_t i = 0; i < 10; ++i) requests.push_back(Request(Prompt(3 + i * 13 % 90, i % 3), 5 + i * 7 % 30));
  requests[4].sampling.temperature = 0.9f;
  requests[4].sampling.seed = 11;
  requests[7].sampling = requests[4].sampling;
  requests[7].n = 3;
  return requests;
}

TEST(BatchLoopTest, AnswersAreThoseOfRequestsByThemselves) {
  const std::vector<GenerationRequest> requests = SomeRequests();
  const auto alone = LoadOrDie(DemoOptions(CacheMode::kDynamic));
  std::vector<std::vector<GeneratedSample>> expected;
  for (const GenerationRequest& request : requests) {
    auto output = alone->Generate(request);
    ASSERT_TRUE(output.ok()) << output.status().message();
    expected.push_back(output->samples);
  }
  struct Case {
    CacheMode mode;
    int64_t pool;
    SchedulerOptions scheduler;
    bool preempts;
  };
  const Case cases[] = {{CacheMode::kDynamic, 0, {.max_running = 6}, false},
                        {CacheMode::kStatic, 0, {.max_running = 3, .step_tokens = 9}, false},
                        {CacheMode::kPaged, 0, {.max_running = 6, .step_tokens = 40}, false},
                        {CacheMode::kPaged, 256, {.max_running = 6, .step_tokens = 40}, true},
                        {CacheMode::kPaged, 256, {.max_running = 6, .chunk_prompts = false}, true},
                        {CacheMode::kPaged,
                         256,
                         {.max_running = 6, .step_tokens = 40, .preemption = Preemption::kSwap, .swap_bytes = 1 << 28},
                         true},
                        {CacheMode::kPaged,
                         256,
                         {.max_running = 6, .step_tokens = 40, .preemption = Preemption::kSwap, .swap_bytes = 1 << 18},
                         true},
                        {CacheMode::kPaged, 0, {.batching = Batching::kStatic, .max_running = 4}, false}};
  for (const Case& test : cases) {
    const auto engine = LoadOrDie(DemoOptions(test.mode, test.pool));
    auto loop = engine->Batch(test.scheduler);
    ASSERT_TRUE(loop.ok()) << loop.status().message();
    Answers answers(requests.size());
    std::vector<std::string> shown(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      const auto id = (*loop)->Submit({.generation = requests[i],
                                       .priority = static_cast<int32_t>(i % 2),
                                       .on_text =
                                           [&shown, i](const TextEvent& event) {
                                             if (event.index == 0) shown[i] += event.text;
                                             return true;
                                           },
                                       .on_done = answers.At(i)});
      ASSERT_TRUE(id.ok()) << id.status().message();
      if (i % 3 != 2) continue;  // they come while others run
      EXPECT_TRUE((*loop)->Step().ok());
    }
    RunAll(**loop);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(answers.outputs[i].ok()) << answers.outputs[i].status().message();
      const std::vector<GeneratedSample>& samples = answers.outputs[i]->samples;
      ASSERT_EQ(samples.size(), expected[i].size());
      for (size_t s = 0; s < samples.size(); ++s) {
        EXPECT_EQ(samples[s].token_ids, expected[i][s].token_ids) << "request " << i << ", sample " << s;
        EXPECT_EQ(samples[s].logprobs, expected[i][s].logprobs);
        EXPECT_EQ(samples[s].text, expected[i][s].text);
        EXPECT_EQ(samples[s].finish, expected[i][s].finish);
      }
      EXPECT_EQ(shown[i], samples[0].text);
      EXPECT_GT(answers.outputs[i]->first_token_ms, 0);
    }
    EXPECT_EQ(answers.ended, static_cast<int>(requests.size()));
    const SchedulerCounts counts = (*loop)->counts();
    EXPECT_EQ(counts.preempted > 0, test.preempts);
    const bool swaps = test.scheduler.preemption == Preemption::kSwap;
    EXPECT_EQ(counts.swapped_out + counts.swap_refused, swaps ? counts.preempted : 0);
    EXPECT_EQ(counts.swapped_in, counts.swapped_out);
    EXPECT_EQ(engine->CacheBlocks().used, 0);
  }
}

TEST(BatchLoopTest, WhoHangsUpFreesBlocksAndHarmsNobody) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  const auto request = Request(Prompt(40, 3), 30);
  const auto expected = Ids(*engine, request);
  auto loop = engine->Batch({.max_running = 4, .step_tokens = 16});
  ASSERT_TRUE(loop.ok()) << loop.status().message();
  Answers answers(4);
  const auto kept = (*loop)->Submit({.generation = request, .on_done = answers.At(0)});
  auto several = Request(Prompt(40, 5), 30);
  several.n = 2;
  const auto cancelled = (*loop)->Submit({.generation = several, .on_done = answers.At(1)});
  int heard = 0;
  (void)(*loop)->Submit(
      {.generation = several, .on_text = [&heard](const TextEvent&) { return ++heard < 3; }, .on_done = answers.At(2)});
  const auto unborn = (*loop)->Submit({.generation = request, .on_done = answers.At(3)});
  ASSERT_TRUE(kept.ok() && cancelled.ok() && unborn.ok());
  (*loop)->Cancel(*unborn);
  EXPECT_EQ(answers.ended, 1);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE((*loop)->Step().ok());
  const int64_t used = engine->CacheBlocks().used;
  (*loop)->Cancel(*cancelled);
  (*loop)->Cancel(*cancelled);
  EXPECT_LT(engine->CacheBlocks().used, used);
  RunAll(**loop);
  EXPECT_EQ(answers.ended, 4);
  ASSERT_TRUE(answers.outputs[0].ok());
  EXPECT_EQ(answers.outputs[0]->samples[0].token_ids, expected);
  for (const size_t i : {1, 2, 3}) {
    ASSERT_TRUE(answers.outputs[i].ok());
    for (const GeneratedSample& sample : answers.outputs[i]->samples)
      EXPECT_EQ(sample.finish, FinishReason::kCancelled);
  }
  EXPECT_EQ(heard, 3);
  EXPECT_EQ(answers.outputs[1]->samples.size(), 2);
  EXPECT_EQ(answers.outputs[2]->samples.size(), 2);
  EXPECT_EQ(engine->CacheBlocks().used, 0);
}

TEST(BatchLoopTest, WhoHangsUpOnTheFirstTokensHearsNoMore) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  auto loop = engine->Batch({.max_running = 4});
  ASSERT_TRUE(loop.ok()) << loop.status().message();
  auto several = Request(Prompt(20, 5), 6);
  several.n = 4;
  Answers answers(2);
  std::vector<int32_t> heard;
  ASSERT_TRUE((*loop)
                  ->Submit({.generation = several,
                            .on_text =
                                [&heard](const TextEvent& event) {
                                  heard.push_back(event.index);
                                  return event.index != 1;
                                },
                            .on_done = answers.At(0)})
                  .ok());
  RunAll(**loop);
  EXPECT_EQ(heard, (std::vector<int32_t>{0, 1}));
  // And one who hangs up before the first step.
  const auto unborn = (*loop)->Submit({.generation = several, .on_done = answers.At(1)});
  ASSERT_TRUE(unborn.ok());
  (*loop)->Cancel(*unborn);
  for (const auto& output : answers.outputs) {
    ASSERT_TRUE(output.ok()) << output.status().message();
    ASSERT_EQ(output->samples.size(), 4);
    for (const GeneratedSample& sample : output->samples) EXPECT_EQ(sample.finish, FinishReason::kCancelled);
  }
}

TEST(BatchLoopTest, NoMoreTextsWaitToBecomeVectorsThanMay) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  auto loop = engine->Batch({.max_running = 2, .max_waiting = 2});
  ASSERT_TRUE(loop.ok()) << loop.status().message();
  EXPECT_TRUE((*loop)->Submit(EmbeddingRequest{.tokens = Prompt(5, 1)}).ok());
  EXPECT_TRUE((*loop)->Submit({.generation = Request(Prompt(5, 1), 3)}).ok());
  EXPECT_EQ((*loop)->counts().waiting, 2);
  EXPECT_EQ((*loop)->Submit(EmbeddingRequest{.tokens = Prompt(5, 1)}).status().code(), StatusCode::kResourceExhausted);
  RunAll(**loop);
  EXPECT_TRUE((*loop)->empty());
}

TEST(BatchLoopTest, SamplesOfARequestThatWasLetInAreNeverRefused) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  auto loop = engine->Batch({.max_running = 1, .max_waiting = 1});
  ASSERT_TRUE(loop.ok()) << loop.status().message();
  Answers answers(1);
  auto several = Request(Prompt(20, 5), 6);
  several.n = 4;
  ASSERT_TRUE((*loop)->Submit({.generation = several, .on_done = answers.At(0)}).ok());
  RunAll(**loop);
  ASSERT_TRUE(answers.outputs[0].ok()) << answers.outputs[0].status().message();
  EXPECT_EQ(answers.outputs[0]->samples.size(), 4);
}

TEST(BatchLoopTest, SaysWhatItCannotDo) {
  const auto window = [] {
    EngineOptions options = DemoOptions(CacheMode::kWindow);
    options.cache.bound.tokens = 64;
    return LoadOrDie(options);
  }();
  const auto refused = window->Batch({});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("--cache dynamic, static or paged"));

  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  EXPECT_FALSE(engine->Batch({.max_running = 7}).ok());
  EXPECT_FALSE(engine->Batch({.max_running = 0}).ok());
  EXPECT_FALSE(engine->Batch({.max_running = 1, .step_tokens = -1}).ok());
  EXPECT_FALSE(engine->Batch({.max_running = 1, .max_waiting = 0}).ok());
  auto loop = engine->Batch({.max_running = 2});
  ASSERT_TRUE(loop.ok());
  auto request = Request(Prompt(4, 1), 4);
  request.keep = true;
  EXPECT_FALSE((*loop)->Submit({.generation = request}).ok());
  EXPECT_FALSE((*loop)->Submit({.generation = Request({}, 4)}).ok());
  EXPECT_FALSE((*loop)->Submit({.generation = Request({-1}, 4)}).ok());
  EXPECT_FALSE((*loop)->Submit({.generation = Request(Prompt(200, 1), 4)}).ok());
  // Nothing of this has left a trace.
  Answers answers(1);
  ASSERT_TRUE((*loop)->Submit({.generation = Request(Prompt(10, 2), 4), .on_done = answers.At(0)}).ok());
  RunAll(**loop);
  ASSERT_TRUE(answers.outputs[0].ok());
  EXPECT_EQ(answers.outputs[0]->samples[0].token_ids.size(), 4);
}

}  // namespace
}  // namespace kvasir
