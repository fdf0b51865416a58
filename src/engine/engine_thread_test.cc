// The loop on its own thread: requests from several others.
#include "engine/engine_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>

#include "engine/testing.h"

namespace kvasir {
namespace {

using testing::DemoOptions;
using testing::Ids;
using testing::LoadOrDie;
using testing::Request;

std::unique_ptr<EngineThread> StartOrDie(Engine& engine, const SchedulerOptions& options,
                                         EngineThread::StepCallback on_step = {}) {
  auto thread = EngineThread::Start(engine, options, std::move(on_step));
  EXPECT_TRUE(thread.ok()) << thread.status().message();
  return *std::move(thread);
}

using Answer = std::promise<Result<BatchOutput>>;

BatchRequest Asking(GenerationRequest generation, Answer& answer) {
  return {.generation = std::move(generation),
          .on_done = [&answer](Result<BatchOutput> output) { answer.set_value(std::move(output)); }};
}

TEST(EngineThreadTest, AnswersRequestsOfSeveralThreadsAsByThemselves) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  const std::vector<TokenId> expected = Ids(*engine, Request({1, 2, 3}, 20));
  std::atomic<int64_t> steps = 0;
  const auto thread = StartOrDie(*engine, {.max_running = 4},
                                 [&](const Engine&, const BatchStep&, const SchedulerCounts&) { ++steps; });
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      for (int i = 0; i < 5; ++i) {
        Answer answer;
        ASSERT_TRUE(thread->Submit(Asking(Request({1, 2, 3}, 20), answer)).ok());
        const Result<BatchOutput> output = answer.get_future().get();
        ASSERT_TRUE(output.ok()) << output.status().message();
        EXPECT_EQ(output->samples[0].token_ids, expected);
        EXPECT_GT(output->first_step_ms, 0);
        EXPECT_GE(output->first_token_ms, output->first_step_ms);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(thread->active(), 0);
  EXPECT_GE(steps, 25);
}

TEST(EngineThreadTest, CancelledRequestsEndAndGiveTheirBlocksBack) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  const auto thread = StartOrDie(*engine, {.max_running = 4});
  Answer answer;
  std::promise<void> begun;
  int tokens = 0;
  BatchRequest request = Asking(Request({1, 2, 3}, 150), answer);
  request.on_text = [&](const TextEvent&) {
    if (++tokens == 1) begun.set_value();
    return true;
  };
  const auto id = thread->Submit(std::move(request));
  ASSERT_TRUE(id.ok());
  begun.get_future().get();
  thread->Cancel(*id);
  const Result<BatchOutput> output = answer.get_future().get();
  ASSERT_TRUE(output.ok());
  // It may have been done already on a machine that let this thread wait.
  EXPECT_TRUE(output->samples[0].finish == FinishReason::kCancelled || output->samples[0].token_ids.size() == 150);
  thread->Cancel(*id);  // nothing happens
  thread->Stop();
  EXPECT_EQ(engine->CacheBlocks().used, 0);
}

TEST(EngineThreadTest, MakesVectorsBesideAnswers) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  std::vector<TokenId> text(90);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<TokenId>(i * 7 % 4000);
  // By itself: all tokens in one pass.
  std::vector<std::vector<float>> expected;
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
    const auto thread = StartOrDie(*engine, {.max_running = 2});
    std::promise<Result<std::vector<float>>> vector;
    ASSERT_TRUE(thread
                    ->Submit(EmbeddingRequest{
                        .tokens = text, .pooling = pooling, .on_done = [&](auto v) { vector.set_value(std::move(v)); }})
                    .ok());
    auto got = vector.get_future().get();
    ASSERT_TRUE(got.ok()) << got.status().message();
    double squares = 0;
    for (const float x : *got) squares += static_cast<double>(x) * static_cast<double>(x);
    EXPECT_NEAR(squares, 1, 1e-5);
    expected.push_back(*got);
  }
  EXPECT_NE(expected[0], expected[1]);
  const std::vector<TokenId> answer_alone = Ids(*engine, Request({1, 2, 3}, 60));
  const auto thread = StartOrDie(*engine, {.max_running = 2});
  Answer answer;
  ASSERT_TRUE(thread->Submit(Asking(Request({1, 2, 3}, 60), answer)).ok());
  std::vector<std::promise<Result<std::vector<float>>>> vectors(4);
  for (size_t i = 0; i < vectors.size(); ++i) {
    ASSERT_TRUE(thread
                    ->Submit(EmbeddingRequest{.tokens = text,
                                              .pooling = i % 2 == 0 ? Pooling::kMean : Pooling::kLast,
                                              .on_done = [&, i](auto v) { vectors[i].set_value(std::move(v)); }})
                    .ok());
  }
  for (size_t i = 0; i < vectors.size(); ++i) {
    const auto got = vectors[i].get_future().get();
    ASSERT_TRUE(got.ok());
    EXPECT_EQ(*got, expected[i % 2]);  // to the bit, whatever the pieces
  }
  const Result<BatchOutput> output = answer.get_future().get();
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->samples[0].token_ids, answer_alone);
  EXPECT_EQ(thread->Submit(EmbeddingRequest{}).status().code(), StatusCode::kInvalidArgument);
  std::promise<Result<std::vector<float>>> cut;
  const auto id =
      thread->Submit(EmbeddingRequest{.tokens = text, .on_done = [&](auto v) { cut.set_value(std::move(v)); }});
  ASSERT_TRUE(id.ok());
  thread->Cancel(*id);
  const auto got = cut.get_future().get();
  EXPECT_TRUE(got.ok() || got.status().code() == StatusCode::kCancelled);
  thread->Stop();
  EXPECT_EQ(thread->active(), 0);
  EXPECT_EQ(engine->CacheBlocks().used, 0);
}

TEST(EngineThreadTest, VectorsDoNotWaitForABatchToFill) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  const auto thread = StartOrDie(*engine, {.batching = Batching::kDynamic, .max_running = 2, .batch_wait_ms = 1e8});
  Answer answer;
  ASSERT_TRUE(thread->Submit(Asking(Request({1, 2, 3}, 5), answer)).ok());
  std::promise<bool> vector;
  ASSERT_TRUE(thread
                  ->Submit(EmbeddingRequest{.tokens = std::vector<TokenId>(150, 7),
                                            .on_done = [&](auto v) { vector.set_value(v.ok()); }})
                  .ok());
  EXPECT_TRUE(vector.get_future().get());
  thread->Stop();
  EXPECT_EQ(answer.get_future().get()->samples[0].finish, FinishReason::kCancelled);
}

TEST(EngineThreadTest, RefusesWhatIsWrongOrTooMuch) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  const auto thread = StartOrDie(*engine, {.max_running = 1, .max_waiting = 2});
  EXPECT_EQ(thread->Submit({.generation = Request({}, 3)}).status().code(), StatusCode::kInvalidArgument);
  std::vector<std::unique_ptr<Answer>> answers;
  int refused = 0;
  for (int i = 0; i < 40; ++i) {
    answers.push_back(std::make_unique<Answer>());
    const auto id = thread->Submit(Asking(Request({1, 2, 3}, 100), *answers.back()));
    if (id.ok()) continue;
    EXPECT_EQ(id.status().code(), StatusCode::kResourceExhausted);
    answers.pop_back();
    ++refused;
  }
  EXPECT_GT(refused, 0);
  for (const auto& answer : answers) {
    const Result<BatchOutput> output = answer->get_future().get();
    EXPECT_TRUE(output.ok()) << output.status().message();  // who was taken is answered
  }
}

TEST(EngineThreadTest, EveryoneHearsOfTheEnd) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  auto thread = StartOrDie(*engine, {.max_running = 2});
  std::vector<Answer> answers(6);
  for (Answer& answer : answers) ASSERT_TRUE(thread->Submit(Asking(Request({5, 6}, 150), answer)).ok());
  thread->Stop();
  for (Answer& answer : answers) EXPECT_TRUE(answer.get_future().get().ok());
  Answer late;
  EXPECT_EQ(thread->Submit(Asking(Request({5, 6}, 3), late)).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(engine->CacheBlocks().used, 0);
  thread.reset();
  EXPECT_EQ(Ids(*engine, Request({5, 6}, 3)).size(), 3u);  // the engine is as before
}

}  // namespace
}  // namespace kvasir
