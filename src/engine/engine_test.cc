#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "base/limits.h"
#include "base/test_paths.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;
using testing::Ids;
using testing::LoadOrDie;

const std::vector<TokenId> kPrompt = {5, 17, 99, 3, 42, 77, 8, 120, 64, 31, 2, 90};

EngineOptions Options(CacheMode cache = CacheMode::kDynamic, int threads = 2) {
  EngineOptions options;
  options.model = std::string(kFixtures) + "/models/llama";
  options.load_tokenizer = false;
  options.cache.mode = cache;
  options.threads = threads;
  return options;
}

GenerationRequest Request(int32_t n_tokens = 20) { return testing::Request(kPrompt, n_tokens); }

TEST(Engine, GreedyTextIsTheSameForEveryCacheChunkAndThreadCount) {
  for (const std::optional<KvType> kv_type : {std::optional<KvType>(), {KvType::kI8}, {KvType::kI4}}) {
    EngineOptions options = Options();
    options.kv_type = kv_type;
    const std::vector<TokenId> expected = Ids(*LoadOrDie(options), Request());
    ASSERT_EQ(expected.size(), 20u);
    for (CacheMode cache : {CacheMode::kNone, CacheMode::kDynamic, CacheMode::kStatic, CacheMode::kPaged}) {
      for (int threads : {1, 3}) {
        for (int64_t chunk : {1, 5, 512}) {
          options.cache.mode = cache;
          options.threads = threads;
          options.prefill_chunk = chunk;
          EXPECT_EQ(Ids(*LoadOrDie(options), Request()), expected);
        }
      }
    }
  }
}

constexpr AttentionMode kPatterns[] = {{.pattern = AttentionPattern::kLocal, .k = 9},
                                       {.pattern = AttentionPattern::kAtrous, .k = 3},
                                       {.pattern = AttentionPattern::kSparse, .k = 7},
                                       {.pattern = AttentionPattern::kAlternating, .k = 6}};

/// On the demonstration model, after a hundred tokens.
GenerationRequest LongRequest() {
  GenerationRequest request = Request(24);
  for (TokenId id = 300; request.prompt.size() < 100; id += 37) request.prompt.push_back(id);
  return request;
}
EngineOptions DemoOptions(const AttentionMode& attention) {
  EngineOptions options = Options();
  options.model = std::string(kSourceTree) + "/models/demo";
  options.attention = attention;
  return options;
}

TEST(Engine, GreedyTextOfEveryPatternIsTheSameForEveryCacheChunkAndThreadCount) {
  const std::vector<TokenId> full = Ids(*LoadOrDie(DemoOptions({})), LongRequest());
  for (const AttentionMode& attention : kPatterns) {
    EngineOptions options = DemoOptions(attention);
    const std::vector<TokenId> expected = Ids(*LoadOrDie(options), LongRequest());
    ASSERT_EQ(expected.size(), 24u);
    EXPECT_NE(expected, full);
    for (CacheMode cache : {CacheMode::kNone, CacheMode::kDynamic, CacheMode::kStatic, CacheMode::kPaged}) {
      for (const auto& [threads, chunk] : {std::pair<int, int64_t>{1, 7}, {3, 64}, {2, 1}}) {
        options.cache = {cache};
        options.threads = threads;
        options.prefill_chunk = chunk;
        EXPECT_EQ(Ids(*LoadOrDie(options), LongRequest()), expected);
      }
    }
  }
}

TEST(Engine, PatternsAreThoseOfPlainAttentionWithTheSameMask) {
  const auto logits_of = [](const AttentionMode& attention) {
    EngineOptions options = DemoOptions(attention);
    options.dtype = DType::kF32;
    std::vector<float> all;
    EXPECT_TRUE(LoadOrDie(options)
                    ->ForEachLogits(LongRequest().prompt, 0,
                                    [&](int64_t, MatView<const float> logits) {
                                      all.insert(all.end(), logits.data, logits.data + logits.rows * logits.cols);
                                      return OkStatus();
                                    })
                    .ok());
    return all;
  };
  for (AttentionMode attention : kPatterns) {
    const std::vector<float> tiled = logits_of(attention);
    attention.plain = true;
    const std::vector<float> plain = logits_of(attention);
    ASSERT_EQ(tiled.size(), plain.size());
    float largest = 0;
    float worst = 0;
    for (size_t i = 0; i < plain.size(); ++i) {
      largest = std::max(largest, std::abs(plain[i]));
      worst = std::max(worst, std::abs(plain[i] - tiled[i]));
    }
    EXPECT_LE(worst, 1e-4f * largest);
  }
}

TEST(Engine, LogitsDoNotDependOnChunksOrThreads) {
  const auto logits_of = [](int64_t chunk, int threads) {
    EngineOptions options = Options(CacheMode::kDynamic, threads);
    options.prefill_chunk = chunk;
    std::vector<float> all;
    const Status status = LoadOrDie(options)->ForEachLogits(kPrompt, 0, [&](int64_t, MatView<const float> logits) {
      all.insert(all.end(), logits.data, logits.data + logits.rows * logits.cols);
      return OkStatus();
    });
    EXPECT_TRUE(status.ok());
    return all;
  };
  const std::vector<float> expected = logits_of(512, 1);
  EXPECT_EQ(logits_of(1, 2), expected);  // to the bit
  EXPECT_EQ(logits_of(5, 3), expected);
}

TEST(Engine, LogitsFromARowOnAreThoseOfAllRowsAndCostLess) {
  for (int64_t chunk : {5, 512}) {
    EngineOptions options = Options();
    options.prefill_chunk = chunk;
    const auto engine = LoadOrDie(options);
    const auto logits_from = [&](int64_t first_row, int64_t* flops) {
      std::vector<std::vector<float>> rows(static_cast<size_t>(first_row));
      engine->exec().counters = {};
      const Status status = engine->ForEachLogits(kPrompt, first_row, [&](int64_t row, MatView<const float> logits) {
        EXPECT_EQ(row, static_cast<int64_t>(rows.size()));
        for (int64_t r = 0; r < logits.rows; ++r) rows.emplace_back(logits.row(r), logits.row(r) + logits.cols);
        return OkStatus();
      });
      EXPECT_TRUE(status.ok()) << status.message();
      *flops = engine->exec().counters.matmul_flops;
      return rows;
    };
    const auto length = static_cast<int64_t>(kPrompt.size());
    int64_t all_flops = 0;
    const auto all = logits_from(0, &all_flops);
    const int64_t head_flops = 2 * int64_t{engine->model().spec().vocab_size} * engine->model().spec().width;
    for (int64_t first : {int64_t{1}, int64_t{5}, int64_t{7}, length - 1}) {
      int64_t flops = 0;
      const auto rows = logits_from(first, &flops);
      ASSERT_EQ(rows.size(), all.size());
      for (size_t r = static_cast<size_t>(first); r < rows.size(); ++r) EXPECT_EQ(rows[r], all[r]);  // to the bit
      EXPECT_EQ(flops, all_flops - first * head_flops);
    }
    const auto ignore = [](int64_t, MatView<const float>) { return OkStatus(); };
    EXPECT_FALSE(engine->ForEachLogits(kPrompt, length, ignore).ok());
    EXPECT_FALSE(engine->ForEachLogits(kPrompt, -1, ignore).ok());
  }
}

TEST(Engine, SamplingIsRepeatableAndSamplesDiffer) {
  GenerationRequest request = Request();
  request.sampling.temperature = 1.5f;
  request.sampling.seed = 7;
  request.n = 3;
  const auto run = [&](int threads) {
    auto output = LoadOrDie(Options(CacheMode::kDynamic, threads))->Generate(request);
    EXPECT_TRUE(output.ok()) << output.status().message();
    std::vector<std::vector<TokenId>> ids;
    for (const GeneratedSample& sample : output->samples) ids.push_back(sample.token_ids);
    return ids;
  };
  const auto first = run(1);
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(run(3), first);
  EXPECT_NE(first[0], first[1]);
  EXPECT_NE(first[1], first[2]);
  // Sample 0 of three is the sample of one alone: company changes nothing.
  request.n = 1;
  EXPECT_EQ(run(2)[0], first[0]);
}

TEST(Engine, BeamSearchIsNoWorseThanGreedyAndSharesItsCache) {
  for (CacheMode cache : {CacheMode::kNone, CacheMode::kDynamic, CacheMode::kStatic, CacheMode::kPaged}) {
    const auto engine = LoadOrDie(Options(cache));
    GenerationRequest request = Request(8);
    const auto greedy = engine->Generate(request);
    ASSERT_TRUE(greedy.ok());
    double greedy_score = 0.0;
    for (float logprob : greedy->samples[0].logprobs) greedy_score += logprob;
    request.beams = {.num_beams = 4, .num_return = 3};
    const auto beams = engine->Generate(request);
    ASSERT_TRUE(beams.ok()) << beams.status().message();
    ASSERT_EQ(beams->samples.size(), 3u);
    EXPECT_GE(beams->samples[0].score, greedy_score / 8 - 1e-5);
    EXPECT_GE(beams->samples[0].score, beams->samples[1].score);
    EXPECT_GE(beams->samples[1].score, beams->samples[2].score);
  }
}

TEST(Engine, AKeptSequenceIsReusedAndChangesNothing) {
  const auto engine = LoadOrDie(Options());
  GenerationRequest first = Request(6);
  first.keep = true;
  auto output = engine->Generate(first);
  ASSERT_TRUE(output.ok());
  GenerationRequest second = first;
  second.prompt.insert(second.prompt.end(), output->samples[0].token_ids.begin(), output->samples[0].token_ids.end());
  second.prompt.push_back(11);
  const auto reused = engine->Generate(second);
  ASSERT_TRUE(reused.ok());
  // All but the newest token of the first answer was in the cache.
  EXPECT_EQ(reused->timings.cached_tokens, static_cast<int64_t>(kPrompt.size()) + 5);
  EXPECT_EQ(reused->timings.prefill_tokens, 2);
  EXPECT_EQ(reused->samples[0].token_ids, Ids(*LoadOrDie(Options()), second));
  // An edited turn keeps the common prefix only.
  GenerationRequest edited = second;
  edited.prompt[4] = 1;
  const auto other = engine->Generate(edited);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->timings.cached_tokens, 4);
  EXPECT_EQ(other->samples[0].token_ids, Ids(*LoadOrDie(Options()), edited));
}

TEST(Engine, EndsAtEosLengthAndContext) {
  const auto engine = LoadOrDie(Options());
  GenerationRequest request = Request(10);
  const auto free_run = engine->Generate(request);
  ASSERT_TRUE(free_run.ok());
  EXPECT_EQ(free_run->samples[0].finish, FinishReason::kLength);
  EngineOptions small = Options();
  small.context = static_cast<int64_t>(kPrompt.size()) + 3;
  const auto cut = LoadOrDie(small)->Generate(request);
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->samples[0].token_ids.size(), 3u);
  EXPECT_EQ(cut->samples[0].finish, FinishReason::kLength);
  // Any token becomes the end when a bias forces it.
  request.sampling.ignore_eos = false;
  request.sampling.logit_bias[engine->defaults().eos.at(0)] = 1000.0f;
  const auto ended = engine->Generate(request);
  ASSERT_TRUE(ended.ok());
  EXPECT_EQ(ended->samples[0].finish, FinishReason::kEos);
  EXPECT_EQ(ended->samples[0].token_ids.size(), 1u);
}

TEST(Engine, CancellingEndsAtOnceAndLosesNothing) {
  const auto engine = LoadOrDie(Options());
  int tokens = 0;
  const auto output = engine->Generate(Request(), [&](const TextEvent&) { return ++tokens < 4; });
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->samples[0].finish, FinishReason::kCancelled);
  EXPECT_EQ(output->samples[0].token_ids.size(), 4u);
  EXPECT_EQ(Ids(*engine, Request()).size(), 20u);
}

TEST(Engine, AnInterruptionBetweenChunksEndsAtOnceAndLosesNothing) {
  for (CacheMode cache : {CacheMode::kNone, CacheMode::kDynamic, CacheMode::kStatic, CacheMode::kPaged}) {
    EngineOptions options = Options(cache);
    options.prefill_chunk = 5;  // the prompt takes three
    const auto engine = LoadOrDie(options);
    const std::vector<TokenId> expected = Ids(*engine, Request());
    for (int allowed = 0; allowed < 8; ++allowed) {
      GenerationRequest request = Request();
      request.keep = true;
      int asked = 0;
      request.interrupted = [&] { return ++asked > allowed; };
      const auto output = engine->Generate(request);
      ASSERT_TRUE(output.ok()) << output.status().message();
      EXPECT_EQ(asked, allowed + 1);
      EXPECT_EQ(output->samples[0].finish, FinishReason::kCancelled);
      const std::vector<TokenId>& ids = output->samples[0].token_ids;
      EXPECT_EQ(ids, std::vector<TokenId>(expected.begin(), expected.begin() + static_cast<ptrdiff_t>(ids.size())));
      if (allowed < 3) {
        EXPECT_TRUE(ids.empty());
        EXPECT_EQ(output->timings.prefill_tokens, 5 * allowed);
      } else {
        EXPECT_FALSE(ids.empty());
      }
      // The same again goes on from what was run, and gives what it always gives.
      request.interrupted = {};
      const auto again = engine->Generate(request);
      ASSERT_TRUE(again.ok()) << again.status().message();
      EXPECT_EQ(again->samples[0].token_ids, expected);
      if (allowed < 3) {
        EXPECT_EQ(again->timings.cached_tokens, cache == CacheMode::kNone ? 0 : 5 * allowed);
      }
      engine->DropKept();
    }
    GenerationRequest beams = Request(8);
    beams.beams = {.num_beams = 3, .num_return = 2};
    for (int allowed : {1, 5}) {
      int asked = 0;
      beams.interrupted = [&] { return ++asked > allowed; };
      const auto output = engine->Generate(beams);
      ASSERT_TRUE(output.ok()) << output.status().message();
      ASSERT_EQ(output->samples.size(), 2u);
      EXPECT_EQ(output->samples[0].finish, FinishReason::kCancelled);
      EXPECT_EQ(output->samples[0].token_ids.empty(), allowed < 3);
    }
  }
}

TEST(Engine, AKeptSequenceWhoseRotationsWouldDifferIsNotReused) {
  EngineOptions options = Options();
  options.model = std::string(kFixtures) + "/models/llama-dynamic-rope";
  options.context = 4096;  // beyond the trained length, where frequencies depend on the planned one
  const auto engine = LoadOrDie(options);
  GenerationRequest first = Request(500);
  first.sampling.ignore_eos = false;
  first.keep = true;
  int tokens = 0;
  const auto output = engine->Generate(first, [&](const TextEvent&) { return ++tokens < 4; });
  ASSERT_TRUE(output.ok()) << output.status().message();
  GenerationRequest second = first;
  second.max_new_tokens = 1000;
  const auto other = engine->Generate(second);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->timings.cached_tokens, 0);
  const auto same = engine->Generate(second);
  ASSERT_TRUE(same.ok());
  EXPECT_GT(same->timings.cached_tokens, 0);
  EXPECT_EQ(same->samples[0].token_ids, other->samples[0].token_ids);
}

TEST(Engine, BadRequestsAreNamed) {
  const auto engine = LoadOrDie(Options());
  const auto message = [&](auto change) {
    GenerationRequest request = Request();
    change(request);
    const auto output = engine->Generate(request);
    EXPECT_FALSE(output.ok());
    return output.status().message();
  };
  EXPECT_THAT(message([](auto& r) { r.prompt.clear(); }), HasSubstr("no tokens"));
  EXPECT_THAT(message([](auto& r) { r.prompt[2] = 131; }), HasSubstr("131"));
  EXPECT_THAT(message([](auto& r) { r.prompt[2] = -1; }), HasSubstr("-1"));
  EXPECT_THAT(message([](auto& r) { r.prompt.resize(100'000, 1); }), HasSubstr("100000 tokens"));
  EXPECT_THAT(message([](auto& r) { r.max_new_tokens = 0; }), HasSubstr("-n 0"));
  EXPECT_THAT(message([](auto& r) { r.n = 1000; }), HasSubstr("1000 sequences"));
  EXPECT_THAT(message([](auto& r) { r.stop = {"x", ""}; }), HasSubstr("stop string"));
  EXPECT_THAT(message([](auto& r) { r.beams = {.num_beams = 2, .num_return = 3}; }), HasSubstr("3"));
  for (float bad : {-1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(message([&](auto& r) { r.sampling.temperature = bad; }), HasSubstr("temp"));
  }
  EXPECT_THAT(message([](auto& r) { r.sampling.top_p = 0.0f; }), HasSubstr("top"));
  // The engine still works.
  EXPECT_EQ(Ids(*engine, Request()).size(), 20u);
}

TEST(Engine, BadOptionsAreNamed) {
  EngineOptions options = Options();
  options.model = "/nowhere/at/all";
  EXPECT_THAT(Engine::Load(options).status().message(), HasSubstr("no such model"));
  options = Options();
  options.threads = -1;
  EXPECT_THAT(Engine::Load(options).status().message(), HasSubstr("threads"));
  for (int64_t k : {int64_t{-1}, int64_t{0}, kMaxPatternK + 1}) {
    options = Options();
    options.attention = {.pattern = AttentionPattern::kAtrous, .k = k};
    EXPECT_THAT(Engine::Load(options).status().message(), HasSubstr("an attention pattern of distance"));
  }
  options = Options();
  options.context = int64_t{1} << 39;
  EXPECT_EQ(Engine::Load(options).status().code(), StatusCode::kResourceExhausted);
}

/// Peaks of a full context against the plan, which is to be above them and not far.
void ExpectNearPlan(const EngineOptions& options, const std::string& what) {
  ResetMemoryPeaks();
  const int64_t kv_before = GetMemoryUse(MemoryOwner::kKvCache).current;
  const int64_t activations_before = GetMemoryUse(MemoryOwner::kActivations).current;
  const auto engine = LoadOrDie(options);
  const MemoryPlan& plan = engine->memory_plan();
  GenerationRequest request = Request(4);
  request.prompt.assign(static_cast<size_t>(engine->context()) - 5, 7);
  const auto output = engine->Generate(request);
  ASSERT_TRUE(output.ok()) << output.status().message();
  const MemoryReport& memory = output->memory;
  EXPECT_EQ(memory.weights, plan.weights) << what;
  EXPECT_EQ(memory.kv_cache - kv_before, plan.kv_cache) << what;
  const int64_t activations = memory.activation_peak - activations_before;
  EXPECT_LE(activations, plan.activations) << what;
  // Of models as small as these, what threads need for themselves is a good part.
  EXPECT_LE(static_cast<double>(plan.activations), 1.5 * static_cast<double>(activations) + (16 << 10)) << what;
}

TEST(Engine, APlanIsAboveWhatARunTakesAndNotFar) {
  for (const char* name : {"llama", "llama-bf16", "llama-q4_0", "llama-q8_0", "llama-quants", "opt-350m", "mixtral",
                           "gemma2", "gpt-neox", "gpt2", "falcon-7b", "bloom"}) {
    for (int64_t chunk : {64, 512}) {
      for (bool plain : {false, true}) {
        EngineOptions options = Options();
        options.model = std::string(kFixtures) + "/models/" + name;
        options.max_sequences = 1;
        options.prefill_chunk = chunk;
        options.attention.plain = plain;
        const std::string what = fmt::format("{}, chunks of {}{}", name, chunk, plain ? ", plain attention" : "");
        // The tables of these hold no more positions.
        const bool learned = std::string_view(name) == "opt-350m" || std::string_view(name) == "gpt2";
        options.context = learned ? 0 : 1500;
        ExpectNearPlan(options, what);
      }
    }
  }
}

TEST(Engine, APlanIsAboveWhatPatternsTakeAndNotFar) {
  for (const char* name : {"llama", "falcon-7b", "bloom", "gemma2"}) {
    for (const AttentionMode& attention : kPatterns) {
      for (int64_t chunk : {64, 512}) {
        EngineOptions options = Options();
        options.model = std::string(kFixtures) + "/models/" + name;
        options.max_sequences = 1;
        options.prefill_chunk = chunk;
        options.attention = attention;
        options.context = 1500;
        ExpectNearPlan(options,
                       fmt::format("{}, chunks of {}, pattern {}", name, chunk, static_cast<int>(attention.pattern)));
      }
    }
  }
}

TEST(Engine, APlanHoldsForSeveralSequencesAndEveryThreadCount) {
  for (const CacheMode cache : {CacheMode::kDynamic, CacheMode::kStatic, CacheMode::kPaged}) {
    for (int threads : {1, 4}) {
      EngineOptions options = Options(cache, threads);
      options.max_sequences = 4;
      options.context = 600;
      ResetMemoryPeaks();
      const auto engine = LoadOrDie(options);
      GenerationRequest request = Request(50);
      request.n = 4;
      request.prompt.assign(520, 7);
      const auto output = engine->Generate(request);
      ASSERT_TRUE(output.ok()) << output.status().message();
      EXPECT_LE(output->memory.activation_peak, engine->memory_plan().activations);
      EXPECT_LE(output->memory.kv_cache, engine->memory_plan().kv_cache);
    }
  }
}

TEST(Engine, LogitsOfWholeTextsArePlannedFor) {
  EngineOptions options = Options();
  options.context = 300;
  ResetMemoryPeaks();
  const auto engine = LoadOrDie(options);
  const std::vector<TokenId> tokens(300, 7);
  ASSERT_TRUE(engine->ForEachLogits(tokens, 0, [](int64_t, MatView<const float>) { return OkStatus(); }).ok());
  EXPECT_LE(engine->Memory().activation_peak, engine->memory_plan().activations);
}

TEST(Engine, WhatDoesNotFitIsRefusedBeforeItIsLoaded) {
  EngineOptions options = Options();
  bool planned = false;
  options.planned = [&](const MemoryPlan&, int64_t) { planned = true; };
  SetMemoryLimit(1 << 20);
  ResetMemoryPeaks();
  const int64_t before = GetMemoryUse(MemoryOwner::kWeights).peak;
  const Status refused = Engine::Load(options).status();
  SetMemoryLimit(0);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), ::testing::AllOf(HasSubstr("needs "), HasSubstr(" free: weights ")));
  EXPECT_FALSE(planned);
  EXPECT_EQ(GetMemoryUse(MemoryOwner::kWeights).peak, before);
  LoadOrDie(options);
  EXPECT_TRUE(planned);
}

TEST(Engine, MemoryIsCountedByOwner) {
  const auto engine = LoadOrDie(Options());
  const auto output = engine->Generate(Request());
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->memory.weights, engine->model().weight_bytes());
  EXPECT_GT(output->memory.kv_cache, 0);
  EXPECT_GT(output->memory.activation_peak, 0);
  EXPECT_GT(output->memory.process_peak, output->memory.weights);
}

}  // namespace
}  // namespace kvasir
