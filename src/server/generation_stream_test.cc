// Requests between two threads: what the engine's leaves, the server's takes.
#include "server/generation_stream.h"

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "engine/testing.h"

namespace kvasir::server {
namespace {

using kvasir::testing::DemoOptions;
using kvasir::testing::Ids;
using kvasir::testing::LoadOrDie;
using kvasir::testing::Request;

struct Taken {
  std::vector<std::vector<TokenId>> tokens;  // by choice
  std::vector<FinishReason> finish;
  bool done = false;
};

asio::awaitable<void> TakeAll(EngineThread* engine, asio::io_context* context, std::vector<GenerationRequest> requests,
                              size_t stop_after, Taken* taken) {
  std::vector<BatchRequest> batch;
  for (GenerationRequest& request : requests) {
    batch.emplace_back();
    batch.back().generation = std::move(request);
  }
  auto started = GenerationStream::Start(*engine, context->get_executor(), std::move(batch));
  EXPECT_TRUE(started.ok()) << started.status().message();
  if (!started.ok()) co_return;
  const std::unique_ptr<GenerationStream> stream = *std::move(started);
  size_t count = 0;
  while (!stream->ended()) {
    const std::vector<StreamEvent> events = co_await stream->Next(std::chrono::milliseconds(50));
    for (const StreamEvent& event : events) {
      const auto choice = static_cast<size_t>(event.choice);
      taken->tokens.resize(std::max(taken->tokens.size(), choice + 1));
      taken->finish.resize(taken->tokens.size());
      if (event.token) taken->tokens[choice].push_back(*event.token);
      taken->finish[choice] = event.finish;
      ++count;
    }
    if (stop_after > 0 && count >= stop_after) co_return;  // lets go: the client has hung up
  }
  for (const Result<BatchOutput>& output : stream->outputs()) EXPECT_TRUE(output.ok());
  taken->done = true;
}

std::unique_ptr<EngineThread> StartOrDie(Engine& engine) {
  auto thread = EngineThread::Start(engine, {.max_running = 4});
  EXPECT_TRUE(thread.ok()) << thread.status().message();
  return *std::move(thread);
}

TEST(GenerationStreamTest, ManyStreamsGetTheirOwnAnswers) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  std::vector<std::vector<TokenId>> expected;
  for (TokenId first = 1; first <= 3; ++first) expected.push_back(Ids(*engine, Request({first, 7}, 30)));
  const auto thread = StartOrDie(*engine);
  asio::io_context context(1);
  std::vector<Taken> taken(30);
  for (size_t i = 0; i < taken.size(); ++i) {
    // Every third one is two requests at once.
    std::vector<GenerationRequest> requests = {Request({static_cast<TokenId>(i % 3 + 1), 7}, 30)};
    if (i % 3 == 2) requests.push_back(Request({1, 7}, 30));
    asio::co_spawn(context, TakeAll(thread.get(), &context, std::move(requests), 0, &taken[i]), asio::detached);
  }
  context.run();
  for (size_t i = 0; i < taken.size(); ++i) {
    ASSERT_TRUE(taken[i].done) << i;
    ASSERT_EQ(taken[i].tokens.size(), i % 3 == 2 ? 2u : 1u);
    EXPECT_EQ(taken[i].tokens[0], expected[i % 3]);
    if (i % 3 == 2) {
      EXPECT_EQ(taken[i].tokens[1], expected[0]);
    }
    EXPECT_EQ(taken[i].finish[0], FinishReason::kLength);
  }
  EXPECT_EQ(thread->active(), 0);
}

TEST(GenerationStreamTest, WhoLetsGoCancels) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  const auto thread = StartOrDie(*engine);
  asio::io_context context(1);
  std::vector<Taken> taken(12);
  for (size_t i = 0; i < taken.size(); ++i) {
    asio::co_spawn(context, TakeAll(thread.get(), &context, {Request({3, 4}, 190)}, i % 4 == 0 ? 0 : 1 + i, &taken[i]),
                   asio::detached);
  }
  context.run();
  for (size_t i = 0; i < taken.size(); ++i) {
    EXPECT_EQ(taken[i].done, i % 4 == 0);
    if (i % 4 == 0) {
      EXPECT_EQ(taken[i].tokens[0].size(), 190u);
    }
  }
  thread->Stop();
  EXPECT_EQ(thread->active(), 0);
  EXPECT_EQ(engine->CacheBlocks().used, 0);
}

TEST(GenerationStreamTest, OneRequestThatIsRefusedTakesTheOthersBack) {
  const auto engine = LoadOrDie(DemoOptions(CacheMode::kPaged));
  const auto thread = StartOrDie(*engine);
  asio::io_context context(1);
  std::vector<BatchRequest> requests(2);
  requests[0].generation = Request({1, 2}, 190);
  requests[1].generation = Request({}, 5);
  const auto stream = GenerationStream::Start(*thread, context.get_executor(), std::move(requests));
  EXPECT_EQ(stream.status().code(), StatusCode::kInvalidArgument);
  thread->Stop();
  EXPECT_EQ(thread->active(), 0);
  EXPECT_EQ(engine->CacheBlocks().used, 0);
}

}  // namespace
}  // namespace kvasir::server
