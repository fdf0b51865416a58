// Many requests at once, of all kinds, in any order, in pools that cannot hold them.
#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <random>
#include <vector>

#include "engine/batch_loop_testing.h"

namespace kvasir {
namespace {

using testing::Answers;
using testing::DemoOptions;
using testing::LoadOrDie;
using testing::Prompt;
using testing::Request;
using testing::RunAll;

/// A text that is to become a vector and answers, in a pool that cannot hold both.
TEST(BatchLoopRandomTest, VectorsAndAnswersGetTheirRoomOneAfterTheOther) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged, 224));
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
TEST(BatchLoopRandomTest, EveryoneEndsWithHisOwnAnswerUnderRandomCalls) {
  const auto alone = LoadOrDie(DemoOptions(CacheMode::kDynamic));
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
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged, 224));
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

}  // namespace
}  // namespace kvasir
