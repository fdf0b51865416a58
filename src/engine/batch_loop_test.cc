// Many requests at once: everyone gets the answer of a request by itself.
#include "engine/batch_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <optional>
#include <random>

#include "base/test_paths.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;
using testing::Ids;
using testing::LoadOrDie;
using testing::Request;

EngineOptions Options(CacheMode mode, int64_t pool_tokens = 0) {
  EngineOptions options;
  options.model = std::filesystem::path(kSourceTree) / "models/demo";
  options.cache.mode = mode;
  options.pool_tokens = pool_tokens;
  options.threads = 2;
  options.context = 200;
  options.max_sequences = 6;
  return options;
}

std::vector<TokenId> Prompt(int32_t count, int32_t first) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = (i * 37 + first) % 4000;
  return tokens;
}

std::vector<GenerationRequest> SomeRequests() {
  std::vector<GenerationRequest> requests;
  for (int32_t i = 0; i < 10; ++i) requests.push_back(Request(Prompt(3 + i * 13 % 90, i % 3), 5 + i * 7 % 30));
  requests[4].sampling.temperature = 0.9f;
  requests[4].sampling.seed = 11;
  requests[7].sampling = requests[4].sampling;
  requests[7].n = 3;
  return requests;
}

struct Answers {
  std::vector<Result<BatchOutput>> outputs;
  int ended = 0;

  explicit Answers(size_t count) {
    for (size_t i = 0; i < count; ++i) outputs.emplace_back(Internal("no answer"));
  }
  std::function<void(Result<BatchOutput>)> At(size_t i) {
    return [this, i](Result<BatchOutput> output) {
      outputs[i] = std::move(output);
      ++ended;
    };
  }
};

void RunAll(BatchLoop& loop) {
  for (int steps = 0; steps < 10'000; ++steps) {
    const auto more = loop.Step();
    ASSERT_TRUE(more.ok()) << more.status().message();
    if (!*more) return;
  }
  FAIL() << "no end";
}

TEST(BatchLoopTest, AnswersAreThoseOfRequestsByThemselves) {
  const std::vector<GenerationRequest> requests = SomeRequests();
  const auto alone = LoadOrDie(Options(CacheMode::kDynamic));
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
    const auto engine = LoadOrDie(Options(test.mode, test.pool));
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
  const auto engine = LoadOrDie(Options(CacheMode::kPaged));
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
  const auto engine = LoadOrDie(Options(CacheMode::kPaged));
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

/// A text that is to become a vector and answers, in a pool that cannot hold both.
TEST(BatchLoopTest, VectorsAndAnswersGetTheirRoomOneAfterTheOther) {
  const auto engine = LoadOrDie(Options(CacheMode::kPaged, 224));
  auto loop = engine->Batch({.max_running = 2, .step_tokens = 64, .max_waiting = 3});
  ASSERT_TRUE(loop.ok()) << loop.status().message();
  const auto embed = [&](std::optional<std::vector<float>>& vector) {
    return (*loop)->Submit(EmbeddingRequest{.tokens = Prompt(150, 1), .on_done = [&vector](auto result) {
                                              ASSERT_TRUE(result.ok()) << result.status().message();
                                              vector = *std::move(result);
                                            }});
  };
  std::optional<std::vector<float>> alone;
  ASSERT_TRUE(embed(alone).ok());
  while (*(*loop)->Step()) {
  }
  ASSERT_TRUE(alone.has_value());
  // Answers come for as long as the vector is not there.
  Answers answers(40);
  size_t asked = 0;
  std::optional<std::vector<float>> beside;
  for (int steps = 0; steps < 3000 && !beside; ++steps) {
    while (asked < answers.outputs.size() && (*loop)->counts().waiting < 2) {
      auto request = Request(Prompt(30, static_cast<int32_t>(asked)), 110);
      ASSERT_TRUE((*loop)->Submit({.generation = request, .on_done = answers.At(asked)}).ok());
      ++asked;
      EXPECT_TRUE((*loop)->Step().ok());
    }
    if (steps == 20) {
      ASSERT_TRUE(embed(beside).ok());
    }
    ASSERT_TRUE((*loop)->Step().ok());
  }
  EXPECT_LT(asked, answers.outputs.size());
  EXPECT_EQ(beside, alone);
  RunAll(**loop);
  EXPECT_EQ(answers.ended, static_cast<int>(asked));
  for (size_t i = 0; i < asked; ++i) {
    ASSERT_TRUE(answers.outputs[i].ok()) << answers.outputs[i].status().message();
    EXPECT_EQ(answers.outputs[i]->samples[0].token_ids.size(), 110);
  }
  EXPECT_EQ(engine->CacheBlocks().used, 0);
}

/// Requests of all kinds that come and hang up at random, in pools and with options of all kinds: who is not cancelled
/// gets the answer of a request by itself, everyone ends once, and no block is left in use.
TEST(BatchLoopTest, EveryoneEndsWithHisOwnAnswerUnderRandomCalls) {
  const auto alone = LoadOrDie(Options(CacheMode::kDynamic));
  std::vector<GenerationRequest> requests;
  std::vector<std::vector<GeneratedSample>> expected;
  for (int32_t i = 0; i < 12; ++i) {
    requests.push_back(Request(Prompt(1 + i * 17 % 80, i % 2), 1 + i * 11 % 60));
    requests.back().n = 1 + i % 4 / 2 * (i % 3);
    requests.back().sampling.temperature = i % 4 < 2 ? 0.0f : 0.8f;
    requests.back().sampling.seed = 5;
    auto output = alone->Generate(requests.back());
    ASSERT_TRUE(output.ok()) << output.status().message();
    expected.push_back(output->samples);
  }
  std::mt19937 rng(3);
  const auto pick = [&rng](int low, int high) {
    return low + static_cast<int>(rng() % static_cast<uint32_t>(high - low + 1));
  };
  const auto engine = LoadOrDie(Options(CacheMode::kPaged, 224));
  int64_t preempted = 0;
  for (int round = 0; round < 12; ++round) {
    auto loop = engine->Batch({.batching = round % 4 == 3 ? Batching::kStatic : Batching::kContinuous,
                               .max_running = pick(1, 6),
                               .step_tokens = pick(4, 60),
                               .chunk_prompts = round % 5 != 4,
                               .slowest_answers = round % 3 == 0 ? 2.0 : 0.0,
                               .preemption = round % 2 == 0 ? Preemption::kSwap : Preemption::kRecompute,
                               .swap_bytes = round % 4 == 0 ? 1 << 18 : 1 << 26});
    ASSERT_TRUE(loop.ok()) << loop.status().message();
    struct Asked {
      size_t which = 0;
      RequestId id = 0;
      bool cancelled = false;
      int ended = 0;
    };
    std::deque<Asked> asked;
    int vectors = 0;
    int vectors_wanted = 0;
    for (int call = 0; call < 60; ++call) {
      const int what = pick(0, 9);
      if (what == 0) {
        ++vectors_wanted;
        ASSERT_TRUE((*loop)
                        ->Submit(EmbeddingRequest{.tokens = Prompt(pick(1, 190), pick(0, 3)),
                                                  .on_done =
                                                      [&vectors](auto vector) {
                                                        EXPECT_TRUE(vector.ok());
                                                        ++vectors;
                                                      }})
                        .ok());
      } else if (what < 4) {
        Asked& one = asked.emplace_back(Asked{.which = static_cast<size_t>(pick(0, 11))});
        const auto done = [&one, &expected](Result<BatchOutput> output) {
          ++one.ended;
          ASSERT_TRUE(output.ok()) << output.status().message();
          ASSERT_EQ(output->samples.size(), expected[one.which].size());
          for (size_t s = 0; s < output->samples.size() && !one.cancelled; ++s) {
            EXPECT_EQ(output->samples[s].token_ids, expected[one.which][s].token_ids);
            EXPECT_EQ(output->samples[s].logprobs, expected[one.which][s].logprobs);
          }
        };
        const auto id = (*loop)->Submit({.generation = requests[one.which],
                                         .priority = pick(0, 2),
                                         .client = static_cast<uint64_t>(pick(0, 2)),
                                         .on_done = done});
        ASSERT_TRUE(id.ok()) << id.status().message();
        one.id = *id;
      } else if (what == 4 && !asked.empty()) {
        Asked& one = asked[static_cast<size_t>(pick(0, static_cast<int>(asked.size()) - 1))];
        one.cancelled = one.ended == 0;
        (*loop)->Cancel(one.id);
      } else {
        ASSERT_TRUE((*loop)->Step().ok());
      }
    }
    RunAll(**loop);
    for (const Asked& one : asked) EXPECT_EQ(one.ended, 1);
    EXPECT_EQ(vectors, vectors_wanted);
    EXPECT_EQ((*loop)->counts().swap_bytes, 0);
    preempted += (*loop)->counts().preempted;
    EXPECT_EQ(engine->CacheBlocks().used, 0);
  }
  EXPECT_GT(preempted, 20);
}

TEST(BatchLoopTest, NoMoreTextsWaitToBecomeVectorsThanMay) {
  const auto engine = LoadOrDie(Options(CacheMode::kPaged));
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
  const auto engine = LoadOrDie(Options(CacheMode::kPaged));
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
    EngineOptions options = Options(CacheMode::kWindow);
    options.cache.bound.tokens = 64;
    return LoadOrDie(options);
  }();
  const auto refused = window->Batch({});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("--cache dynamic, static or paged"));

  const auto engine = LoadOrDie(Options(CacheMode::kPaged));
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
