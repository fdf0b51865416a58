// Generation, kept sequences, beams and plans with bounded caches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/test_paths.h"
#include "decode/softmax.h"
#include "engine/engine.h"
#include "engine/step_runner.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;
using testing::Ids;
using testing::LoadOrDie;
using testing::Request;

const CachePolicy kWindow16 = {CacheMode::kWindow, {16, 0}};
const CachePolicy kSink16 = {CacheMode::kSink, {16, 4}};
const CachePolicy kRecompute16 = {CacheMode::kRecompute, {16, 0}};
const CachePolicy kBounded[] = {kWindow16, kSink16, kRecompute16};

const std::vector<TokenId> kPrompt = {5, 17, 99, 3, 42, 77, 8, 120, 64, 31, 2, 90};

std::vector<TokenId> LongPrompt(size_t count) {
  std::vector<TokenId> tokens;
  tokens.reserve(count);
  for (size_t i = 0; i < count; ++i) tokens.push_back(kPrompt[i * i % kPrompt.size()]);
  return tokens;
}

EngineOptions Options(const CachePolicy& cache, const std::string& model = "llama") {
  EngineOptions options;
  options.model = std::string(kFixtures) + "/models/" + model;
  options.load_tokenizer = false;
  options.cache = cache;
  options.threads = 2;
  return options;
}

std::vector<std::vector<float>> Logits(Engine& engine, std::span<const TokenId> tokens, const LogitRows& rows) {
  std::vector<std::vector<float>> all;
  int64_t next = rows.first;
  const Status status = engine.ForEachLogits(tokens, rows, [&](int64_t row, MatView<const float> logits) {
    for (int64_t r = 0; r < logits.rows; ++r) {
      EXPECT_EQ(row + r, next);
      next += rows.every;
      all.emplace_back(logits.row(r), logits.row(r) + logits.cols);
    }
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return all;
}

TEST(BoundedCaches, TextIsThatOfTheDynamicCacheUntilTokensAreDropped) {
  for (const std::optional<KvType> type : {std::optional<KvType>(), {KvType::kI8}, {KvType::kI4}}) {
    EngineOptions options = Options({});
    options.kv_type = type;
    const std::vector<TokenId> expected = Ids(*LoadOrDie(options), Request(kPrompt, 20));
    // The newest token is not run.
    for (const CacheMode mode : {CacheMode::kWindow, CacheMode::kSink, CacheMode::kRecompute}) {
      options.cache = {mode, {31, mode == CacheMode::kSink ? 4 : 0}};
      EXPECT_EQ(Ids(*LoadOrDie(options), Request(kPrompt, 20)), expected) << options.cache.Text();
    }
  }
}

TEST(BoundedCaches, RecomputingIsAFreshRunOfTheLastTokens) {
  const auto engine = LoadOrDie(Options(kRecompute16));
  EngineOptions fresh_options = Options({});
  const auto fresh = LoadOrDie(fresh_options);
  const std::vector<TokenId> ids = Ids(*engine, Request(LongPrompt(20), 30));
  std::vector<TokenId> text = LongPrompt(20);
  for (const TokenId id : ids) {
    EXPECT_EQ(Ids(*fresh, Request({text.end() - 16, text.end()}, 1))[0], id);
    text.push_back(id);
  }
  // Of a whole text, and of every third row.
  const auto all = Logits(*engine, text, {});
  ASSERT_EQ(all.size(), text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t first = i < 16 ? 0 : i - 15;
    const auto expected = Logits(*fresh, std::span(text).subspan(first, i + 1 - first), {.first = int64_t(i - first)});
    EXPECT_EQ(all[i], expected[0]) << i;  // to the bit
  }
  const auto some = Logits(*engine, text, {.first = 2, .every = 3});
  ASSERT_EQ(some.size(), 16u);
  for (size_t i = 0; i < some.size(); ++i) EXPECT_EQ(some[i], all[2 + 3 * i]);
}

TEST(BoundedCaches, TextsGoOnBeyondTheTrainedLength) {
  for (const CachePolicy& policy : kBounded) {
    std::vector<TokenId> expected;
    for (const int threads : {1, 3}) {
      for (const int64_t chunk : {16, 512}) {
        EngineOptions options = Options(policy);
        options.threads = threads;
        options.prefill_chunk = chunk;
        const auto engine = LoadOrDie(options);
        ASSERT_EQ(engine->model().spec().context, 96);
        EXPECT_EQ(engine->memory_plan().note, "");
        const std::vector<TokenId> ids = Ids(*engine, Request(LongPrompt(150), 120));
        EXPECT_EQ(ids.size(), 120u);
        if (expected.empty()) expected = ids;
        EXPECT_EQ(ids, expected) << policy.Text();
      }
    }
  }
}

TEST(BoundedCaches, PassesOfAPromptDependOnItsPositionsAlone) {
  ThreadPool pool(2);
  const auto model = Model::Load(std::string(kFixtures) + "/models/llama", {}, pool);
  ASSERT_TRUE(model.ok());
  ExecContext ctx{.pool = &pool};
  ctx.kernels = *SelectKernelSet();
  Arena arena;
  ctx.scratch = &arena;
  const std::vector<TokenId> one = LongPrompt(70);
  const std::vector<TokenId> other = LongPrompt(45);
  for (const CachePolicy& policy : {kWindow16, kSink16}) {
    const auto run = [&](const auto& use) {
      const auto cache =
          MakeKvCache(policy.bound.sinks > 0 ? CacheKind::kSink : CacheKind::kWindow, {.layers = (*model)->kv_shapes(),
                                                                                       .type = KvType::kF32,
                                                                                       .max_tokens = 1000,
                                                                                       .max_sequences = 2,
                                                                                       .bound = policy.bound,
                                                                                       .rotated_keys = true});
      StepRunner runner(**model, **cache, ctx, 20, {});
      return use(runner, **cache);
    };
    using Rows = std::vector<std::vector<float>>;
    const auto step = [](StepRunner& runner, const std::vector<StepInput>& inputs) {
      const auto logits = runner.Run(inputs);
      EXPECT_TRUE(logits.ok()) << logits.status().message();
      Rows rows;
      for (int64_t r = 0; r < logits->rows; ++r) rows.emplace_back(logits->row(r), logits->row(r) + logits->cols);
      return rows;
    };
    const Rows alone = run([&](StepRunner& runner, KvCache& cache) {
      const StepInput first{.seq = *cache.Create(), .tokens = one};
      const StepInput second{.seq = *cache.Create(), .tokens = other};
      return Rows{step(runner, {first})[0], step(runner, {second})[0]};
    });
    EXPECT_EQ(run([&](StepRunner& runner, KvCache& cache) {
                const StepInput first{.seq = *cache.Create(), .tokens = one};
                const StepInput second{.seq = *cache.Create(), .tokens = other};
                return step(runner, {first, second});
              }),
              alone);
    // Cut before tokens are dropped, as a kept prefix cuts it.
    EXPECT_EQ(run([&](StepRunner& runner, KvCache& cache) {
                const SeqId seq = *cache.Create();
                const StepInput begin{.seq = seq, .tokens = std::span(one).first(7)};
                const StepInput rest{.seq = seq, .tokens = std::span(one).subspan(7)};
                step(runner, {begin});
                return step(runner, {rest})[0];
              }),
              alone[0]);
  }
}

TEST(BoundedCaches, SamplesDoNotDependOnCompany) {
  for (const CachePolicy& policy : kBounded) {
    ResetMemoryPeaks();
    const auto engine = LoadOrDie(Options(policy));
    GenerationRequest request = Request(kPrompt, 40);
    request.sampling.temperature = 1.5f;
    request.sampling.seed = 7;
    request.n = 3;
    const auto output = engine->Generate(request);
    ASSERT_TRUE(output.ok()) << output.status().message();
    EXPECT_NE(output->samples[0].token_ids, output->samples[1].token_ids);
    EXPECT_LE(output->memory.kv_cache, engine->memory_plan().kv_cache);
    request.n = 1;
    EXPECT_EQ(Ids(*engine, request), output->samples[0].token_ids) << policy.Text();
  }
}

TEST(BoundedCaches, BeamsAreScoredByWhatTheirOwnCacheKeeps) {
  for (const CachePolicy& policy : kBounded) {
    const auto engine = LoadOrDie(Options(policy));
    GenerationRequest request = Request(kPrompt, 14);
    request.beams = {.num_beams = 4, .num_return = 3};
    const auto output = engine->Generate(request);
    ASSERT_TRUE(output.ok()) << output.status().message();
    ASSERT_EQ(output->samples.size(), 3u);
    for (const GeneratedSample& sample : output->samples) {
      std::vector<TokenId> text = kPrompt;
      text.insert(text.end(), sample.token_ids.begin(), sample.token_ids.end() - 1);
      const auto first = static_cast<int64_t>(kPrompt.size()) - 1;
      const auto rows = Logits(*engine, text, {.first = first, .one_by_one = true});
      double score = 0.0;
      for (size_t i = 0; i < rows.size(); ++i) {
        score += Summarize(rows[i]).LogProb(rows[i][static_cast<size_t>(sample.token_ids[i])]);
      }
      EXPECT_NEAR(sample.score, score / static_cast<double>(rows.size()), 1e-4) << policy.Text();
    }
  }
}

TEST(BoundedCaches, AKeptSequenceIsReusedWhereItHasAllThatIsNeeded) {
  for (const CachePolicy& policy : {kWindow16, kSink16}) {
    const auto engine = LoadOrDie(Options(policy));
    GenerationRequest first = Request(kPrompt, 3);
    first.keep = true;
    const std::vector<TokenId> answer = Ids(*engine, first);
    // Nothing has been dropped: a changed turn keeps the common prefix.
    GenerationRequest edited = Request(LongPrompt(30), 25);
    edited.keep = true;
    std::copy_n(kPrompt.begin(), 9, edited.prompt.begin());
    edited.prompt[9] = 1;
    auto output = engine->Generate(edited);
    ASSERT_TRUE(output.ok());
    EXPECT_EQ(output->timings.cached_tokens, 9);
    EXPECT_EQ(output->samples[0].token_ids, Ids(*LoadOrDie(Options(policy)), edited)) << policy.Text();
    // The conversation goes on: all of it is of use, the newest token apart.
    GenerationRequest next = edited;
    const std::vector<TokenId>& ids = output->samples[0].token_ids;
    next.prompt.insert(next.prompt.end(), ids.begin(), ids.end());
    next.prompt.push_back(11);
    output = engine->Generate(next);
    ASSERT_TRUE(output.ok());
    EXPECT_EQ(output->timings.cached_tokens, 30 + 24);
    EXPECT_EQ(output->timings.prefill_tokens, 2);
    // A turn is taken back: tokens that it would see again are gone, so the text is run from its start.
    output = engine->Generate(edited);
    ASSERT_TRUE(output.ok());
    EXPECT_EQ(output->timings.cached_tokens, 0);
    EXPECT_EQ(output->samples[0].token_ids, Ids(*LoadOrDie(Options(policy)), edited)) << policy.Text();
  }
  const auto engine = LoadOrDie(Options(kRecompute16));
  GenerationRequest request = Request(kPrompt, 10);
  request.keep = true;
  const std::vector<TokenId> ids = Ids(*engine, request);
  const auto again = engine->Generate(request);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->timings.cached_tokens, 0);
  EXPECT_EQ(again->samples[0].token_ids, ids);
}

TEST(BoundedCaches, PositionsThatCannotMoveAreNamed) {
  for (const char* model : {"gpt2", "opt", "xglm"}) {
    const Status refused = Engine::Load(Options(kSink16, model)).status();
    EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(refused.message(), HasSubstr("adds positions to its embedding")) << model;
    // As far as there are positions, a window does; recomputing goes on for ever.
    const auto window = LoadOrDie(Options(kWindow16, model));
    const auto recompute = LoadOrDie(Options(kRecompute16, model));
    EXPECT_EQ(Ids(*recompute, Request(kPrompt, 150)).size(), 150u);
    const auto output = window->Generate(Request(kPrompt, 150));
    ASSERT_TRUE(output.ok()) << output.status().message();
    const bool learned = std::string_view(model) != "xglm";
    EXPECT_EQ(output->samples[0].token_ids.size(), learned ? size_t(window->context()) - kPrompt.size() : 150u);
  }
  EXPECT_THAT(Engine::Load(Options({CacheMode::kRecompute, {200, 0}}, "gpt2")).status().message(),
              HasSubstr("recompute:200 is beyond the model's 80 learned positions"));
}

TEST(BoundedCaches, ImpossiblePoliciesAreNamed) {
  const auto message = [](CacheMode mode, KvBound bound) {
    const Status status = Engine::Load(Options({mode, bound})).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message(CacheMode::kWindow, {0, 0}), HasSubstr("window:0"));
  EXPECT_THAT(message(CacheMode::kRecompute, {-1, 0}), HasSubstr("recompute:-1"));
  EXPECT_THAT(message(CacheMode::kSink, {16, 0}), HasSubstr("without them it is window:16"));
  EXPECT_THAT(message(CacheMode::kSink, {4, 4}), HasSubstr("5 or more"));
  EXPECT_THAT(message(CacheMode::kWindow, {16, 4}), HasSubstr("no sinks"));
  EXPECT_THAT(message(CacheMode::kDynamic, {16, 0}), HasSubstr("no bound"));
}

TEST(BoundedCaches, APlanIsAboveWhatARunTakesAndNotFar) {
  for (const CacheMode mode : {CacheMode::kWindow, CacheMode::kSink, CacheMode::kRecompute}) {
    for (const char* model : {"llama", "llama-gqa", "gpt-neox", "bloom", "mixtral"}) {
      for (const int64_t chunk : {32, 512}) {
        EngineOptions options = Options({mode, {300, mode == CacheMode::kSink ? 130 : 0}}, model);
        options.prefill_chunk = chunk;
        options.max_sequences = 1;
        ResetMemoryPeaks();
        const int64_t kv_before = GetMemoryUse(MemoryOwner::kKvCache).current;
        const int64_t activations_before = GetMemoryUse(MemoryOwner::kActivations).current;
        const auto engine = LoadOrDie(options);
        const MemoryPlan& plan = engine->memory_plan();
        EXPECT_EQ(plan.cached_tokens, 300);
        const auto output = engine->Generate(Request(LongPrompt(700), 5));
        ASSERT_TRUE(output.ok()) << output.status().message();
        const std::string what = fmt::format("{}, {}, chunks of {}", model, options.cache.Text(), chunk);
        EXPECT_EQ(output->memory.kv_cache - kv_before, plan.kv_cache) << what;
        const int64_t activations = output->memory.activation_peak - activations_before;
        EXPECT_LE(activations, plan.activations) << what;
        EXPECT_LE(static_cast<double>(plan.activations), 1.6 * static_cast<double>(activations) + (32 << 10)) << what;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
