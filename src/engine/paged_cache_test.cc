// Requests that share the blocks of what they begin with alike, and pools that are full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/limits.h"
#include "base/test_paths.h"
#include "engine/generation.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Ids;
using testing::LoadOrDie;
using testing::Request;

EngineOptions Options(const CachePolicy& cache, const std::string& model = "demo") {
  EngineOptions options;
  const std::filesystem::path root = kSourceTree;
  options.model = model == "demo" ? root / "models/demo" : root / "tests/fixtures/models" / model;
  options.load_tokenizer = false;
  options.cache = cache;
  options.threads = 2;
  return options;
}
CachePolicy Paged(int64_t block_tokens = 0) { return {CacheMode::kPaged, {}, block_tokens}; }

std::vector<TokenId> Prompt(int32_t count, int32_t first = 11) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = (i * 37 + first) % 4000;
  return tokens;
}
std::vector<TokenId> Joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

GenerationOutput Generate(Engine& engine, const GenerationRequest& request) {
  auto output = engine.Generate(request);
  EXPECT_TRUE(output.ok()) << output.status().message();
  return output.ok() ? *std::move(output) : GenerationOutput{};
}

TEST(PagedEngine, TextIsThatOfEveryOtherCacheWithSharedPrefixesAndWithout) {
  const auto first = Request(Prompt(100), 30);
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4}) {
    EngineOptions options = Options({CacheMode::kNone});
    options.kv_type = type;
    const auto none = LoadOrDie(options);
    const auto expected = Ids(*none, first);
    const auto second = Request(Joined(Prompt(100), Joined(expected, {5, 6, 7})), 30);
    const auto third = Request(Joined(Prompt(70), {9, 9, 9}), 30);
    const auto expected_second = Ids(*none, second);
    const auto expected_third = Ids(*none, third);
    for (const int64_t block : {0, 16, 64, 112}) {
      for (const int64_t chunk : {7, 512}) {
        options.cache = Paged(block);
        options.prefill_chunk = chunk;
        const auto engine = LoadOrDie(options);
        const int64_t slots = block == 0 ? kPagedBlockTokens : block;
        auto output = Generate(*engine, first);
        EXPECT_EQ(output.samples[0].token_ids, expected);
        EXPECT_EQ(output.timings.cached_tokens, 0);
        // What was generated is known as well, but for the newest token, which was not run.
        output = Generate(*engine, second);
        EXPECT_EQ(output.samples[0].token_ids, expected_second) << KvTypeName(type) << " " << block;
        EXPECT_EQ(output.timings.cached_tokens, 129 / slots * slots);
        EXPECT_EQ(output.timings.prefill_tokens, 133 - output.timings.cached_tokens);
        output = Generate(*engine, third);
        EXPECT_EQ(output.samples[0].token_ids, expected_third) << KvTypeName(type) << " " << block;
        EXPECT_EQ(output.timings.cached_tokens, 70 / slots * slots);
        output = Generate(*engine, first);
        EXPECT_EQ(output.samples[0].token_ids, expected);
        EXPECT_EQ(output.timings.cached_tokens, 99 / slots * slots);
        EXPECT_EQ(engine->CacheBlocks().used, 0);
        EXPECT_GT(engine->CacheBlocks().cached, 0);
      }
    }
  }
}

TEST(PagedEngine, SamplesAndBeamsShareWhatOtherRequestsHaveRun) {
  const auto dynamic = LoadOrDie(Options({}));
  const auto paged = LoadOrDie(Options(Paged(16)));
  const auto single = Request(Prompt(50), 8);
  EXPECT_EQ(Ids(*paged, single), Ids(*dynamic, single));
  auto samples = Request(Prompt(50), 20);
  samples.n = 4;
  samples.sampling.temperature = 1.5f;
  samples.sampling.seed = 7;
  auto beams = Request(Prompt(45), 20);
  beams.beams = {.num_beams = 4, .num_return = 3};
  for (const auto& request : {samples, beams}) {
    const auto expected = Generate(*dynamic, request);
    const auto got = Generate(*paged, request);
    EXPECT_GT(got.timings.cached_tokens, 0);
    ASSERT_EQ(got.samples.size(), expected.samples.size());
    for (size_t i = 0; i < got.samples.size(); ++i) {
      EXPECT_EQ(got.samples[i].token_ids, expected.samples[i].token_ids);
    }
    EXPECT_EQ(paged->CacheBlocks().used, 0);
  }
  // Their answers are known too.
  const auto more = Request(Joined(Prompt(50), Generate(*dynamic, samples).samples[3].token_ids), 5);
  EXPECT_EQ(Generate(*paged, more).timings.cached_tokens, 64);
}

TEST(PagedEngine, AKeptSequenceAndTheTreeEachServeWhatTheyKnow) {
  EngineOptions options = Options(Paged(16));
  options.max_sequences = 1;
  const auto engine = LoadOrDie(options);
  const auto dynamic = LoadOrDie(Options({}));
  const auto run = [&](const std::vector<TokenId>& prompt, int64_t cached) {
    auto request = Request(prompt, 6);
    request.keep = true;
    const auto output = Generate(*engine, request);
    EXPECT_EQ(output.timings.cached_tokens, cached);
    EXPECT_EQ(output.samples[0].token_ids, Ids(*dynamic, Request(prompt, 6)));
    return Joined(prompt, output.samples[0].token_ids);
  };
  auto one = run(Prompt(40), 0);
  one = run(Joined(one, {1, 2}), 45);  // kept: to the token
  auto other = run(Prompt(60, 500), 0);
  one = run(Joined(one, {3, 4}), 48);  // from the tree: whole blocks
  one = run(Joined(one, {3, 4}), 61);
  EXPECT_EQ(engine->CacheBlocks().used, 5);
  engine->DropKept();
  EXPECT_EQ(engine->CacheBlocks().used, 0);
}

TEST(PagedEngine, SaltsKeepPrefixesApart) {
  const auto engine = LoadOrDie(Options(Paged()));
  const auto cached = [&](const std::string& salt, bool keep) {
    auto request = Request(Prompt(80), 4);
    request.cache_salt = salt;
    request.keep = keep;
    return Generate(*engine, request).timings.cached_tokens;
  };
  EXPECT_EQ(cached("", false), 0);
  EXPECT_EQ(cached("a", false), 0);
  EXPECT_EQ(cached("a", false), 64);
  EXPECT_EQ(cached("b", true), 0);
  EXPECT_EQ(cached("a", true), 64);  // not the kept one
  EXPECT_EQ(cached("a", true), 79);
  EXPECT_EQ(cached("b", true), 64);
  EXPECT_EQ(cached("", false), 64);
}

TEST(PagedEngine, RotationsForOtherLengthsAreNotShared) {
  EngineOptions options = Options(Paged(16), "llama-dynamic-rope");
  options.context = 4096;  // frequencies depend on the planned length from 40 tokens on
  const auto engine = LoadOrDie(options);
  options.cache = {};
  const auto dynamic = LoadOrDie(options);
  std::vector<TokenId> prompt;
  for (TokenId i = 0; i < 20; ++i) prompt.push_back((i * 7 + 3) % 100);
  const auto cached = [&](int32_t new_tokens) {
    const auto request = Request(prompt, new_tokens);
    const auto output = Generate(*engine, request);
    EXPECT_EQ(output.samples[0].token_ids, Generate(*dynamic, request).samples[0].token_ids);
    return output.timings.cached_tokens;
  };
  EXPECT_EQ(cached(5), 0);
  EXPECT_EQ(cached(20), 16);
  EXPECT_EQ(cached(30), 0);
  EXPECT_EQ(cached(31), 0);
  EXPECT_EQ(cached(30), 16);
  EXPECT_EQ(cached(4), 16);
}

TEST(PagedEngine, AFullPoolIsACleanError) {
  EngineOptions options = Options(Paged(16));
  options.context = 100;
  options.pool_tokens = 112;
  const auto engine = LoadOrDie(options);
  auto request = Request(Prompt(60), 40);
  const auto expected = Ids(*engine, request);
  EXPECT_EQ(engine->CacheBlocks().blocks, 7);
  request.n = 4;
  request.sampling.temperature = 3.0f;
  const Status full = engine->Generate(request).status();
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(),
              AllOf(HasSubstr("the KV cache is full"), HasSubstr("0 free blocks of 16"), HasSubstr("--pool-tokens")));
  EXPECT_EQ(engine->CacheBlocks().used, 0);
  EXPECT_EQ(Ids(*engine, Request(Prompt(60), 40)), expected);
  // Prefixes of other texts make room.
  EXPECT_EQ(Ids(*engine, Request(Prompt(60, 700), 40)).size(), 40u);
  EXPECT_EQ(Ids(*engine, Request(Prompt(60), 40)), expected);
}

TEST(PagedEngine, WithoutATreeNothingIsShared) {
  EngineOptions options = Options(Paged());
  options.most_prefix_blocks = 0;
  const auto engine = LoadOrDie(options);
  const auto request = Request(Prompt(80), 4);
  const auto first = Generate(*engine, request);
  const auto second = Generate(*engine, request);
  EXPECT_EQ(second.timings.cached_tokens, 0);
  EXPECT_EQ(second.samples[0].token_ids, first.samples[0].token_ids);
  EXPECT_EQ(engine->CacheBlocks().cached, 0);
}

TEST(PagedEngine, ThePlanIsThePool) {
  for (const KvType type : {KvType::kBF16, KvType::kI4}) {
    for (const int64_t pool : {0, 500}) {
      EngineOptions options = Options(Paged(48));
      options.kv_type = type;
      options.context = 200;
      options.max_sequences = 3;
      options.pool_tokens = pool;
      ResetMemoryPeaks();
      const int64_t before = GetMemoryUse(MemoryOwner::kKvCache).current;
      const auto engine = LoadOrDie(options);
      const MemoryPlan& plan = engine->memory_plan();
      EXPECT_EQ(plan.pool_tokens, pool == 0 ? 3 * 240 : 528);
      EXPECT_EQ(GetMemoryUse(MemoryOwner::kKvCache).current - before, plan.kv_cache);
      Generate(*engine, Request(Prompt(190), 10));
      EXPECT_EQ(GetMemoryUse(MemoryOwner::kKvCache).peak - before, plan.kv_cache);
      EXPECT_THAT(plan.Text(1), HasSubstr(fmt::format("for {} tokens", plan.pool_tokens)));
    }
  }
}

TEST(PagedEngine, RefusesWhatCannotBe) {
  const auto refused = [](const EngineOptions& options) {
    const Status status = Engine::Load(options).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  for (const int64_t block : {int64_t{-16}, int64_t{17}, int64_t{1040}}) {
    EXPECT_THAT(refused(Options(Paged(block))), HasSubstr("a multiple of 16 up to 1024"));
  }
  EXPECT_THAT(refused(Options({CacheMode::kDynamic, {}, 32})), HasSubstr("only paged has a block size"));
  EXPECT_THAT(refused(Options({CacheMode::kPaged, {16, 0}})), HasSubstr("no bound"));
  EngineOptions options = Options({CacheMode::kStatic});
  options.pool_tokens = 100;
  EXPECT_THAT(refused(options), AllOf(HasSubstr("--pool-tokens"), HasSubstr("--cache static")));
  options = Options(Paged());
  options.pool_tokens = -1;
  refused(options);
  options.pool_tokens = 100;
  options.context = 101;
  EXPECT_THAT(refused(options), HasSubstr("--pool-tokens 100 are too few for one sequence of -c 101"));
  options.context = 0;
  EXPECT_EQ(LoadOrDie(options)->context(), 100);
  options.pool_tokens = int64_t{1} << 40;
  EXPECT_EQ(Engine::Load(options).status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(Engine::Load(options).status().message(), HasSubstr("--pool-tokens "));
}

}  // namespace
}  // namespace kvasir
