#include "model/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/limits.h"
#include "base/test_paths.h"
#include "kernels/exec.h"
#include "model/model.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::filesystem::path Fixture(std::string_view name) { return std::filesystem::path(kFixtures) / "models" / name; }

struct Planned {
  DecoderSpec spec;
  WeightNeed weights;
};
Planned PlanOf(std::string_view name, const LoadOptions& options = {}) {
  auto files = OpenModelFiles(Fixture(name));
  EXPECT_TRUE(files.ok()) << files.status().message();
  auto weights = PlanWeightMemory(Fixture(name), *files, options, 2);
  EXPECT_TRUE(weights.ok()) << weights.status().message();
  return {files->spec, *std::move(weights)};
}

RunShape ShapeFor(int64_t context) {
  return {.kv_type = KvType::kBF16, .context = context, .threads = 2, .kernels = AvailableKernelSets().front()};
}

TEST(ParameterRule, GivesThePublishedFigures) {
  // Figures are of 16-bit weights, for the rounded number of parameters that each model is known by.
  const struct {
    const char* config;
    int64_t parameters;
    double published_gb;
  } cases[] = {{"gpt3-175b", 174'604'259'328, 350},  {"bloom-176b", 176'247'271'424, 352},
               {"llama-2-70b", 68'976'648'192, 140}, {"falcon-40b", 41'303'293'952, 80},
               {"mpt-30b", 29'957'200'896, 60},      {"starcoder-15b", 15'517'456'384, 31}};
  for (const auto& c : cases) {
    const auto spec = ReadConfig(std::filesystem::path(kFixtures) / "configs" / (std::string(c.config) + ".json"));
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    const int64_t parameters = ParameterCount(*spec);
    EXPECT_EQ(parameters, c.parameters) << c.config;
    EXPECT_NEAR(static_cast<double>(RuleBytes16Bit(parameters)) / 1e9 / c.published_gb, 1.0, 0.035) << c.config;
    EXPECT_EQ(RuleBytesFp32(parameters), 2 * RuleBytes16Bit(parameters));
  }
}

TEST(MemoryPlan, WeightsAreWhatLoadingTakes) {
  ThreadPool pool(2);
  for (const char* name : {"llama", "llama-bf16", "llama-q4_0", "llama-q8_0", "gpt2", "mixtral", "gemma2"}) {
    for (LoadOptions options : {LoadOptions{}, LoadOptions{.dtype = DType::kF32}, LoadOptions{.dtype = DType::kBF16},
                                LoadOptions{.weights = DType::kInt8}, LoadOptions{.weights = DType::kNF4}}) {
      // What is quantised already is not rounded again.
      if (options.weights && std::string_view(name).find("-q") != std::string_view::npos) continue;
      ResetMemoryPeaks();
      const int64_t before = GetMemoryUse(MemoryOwner::kWeights).current;
      const WeightNeed need = PlanOf(name, options).weights;
      EXPECT_EQ(GetMemoryUse(MemoryOwner::kWeights).peak, before) << "planning takes no memory for weights";
      bool called = false;
      options.planned = [&](const DecoderSpec&, const WeightNeed& planned) {
        called = true;
        EXPECT_EQ(planned.bytes, need.bytes);
        EXPECT_EQ(GetMemoryUse(MemoryOwner::kWeights).peak, before);
        return OkStatus();
      };
      const auto model = Model::Load(Fixture(name), options, pool);
      ASSERT_TRUE(model.ok()) << model.status().message();
      EXPECT_TRUE(called);
      EXPECT_EQ((*model)->weight_bytes(), need.bytes) << name;
      EXPECT_EQ(GetMemoryUse(MemoryOwner::kWeights).peak - before, need.bytes) << name;
      EXPECT_EQ((*model)->dtype(), need.dtype());
      EXPECT_FALSE(need.mapped);
      EXPECT_GT(need.source_pages, 0);
    }
  }
}

TEST(MemoryPlan, AnErrorOfThePlanEndsLoadingBeforeWeightsAreRead) {
  ThreadPool pool(1);
  ResetMemoryPeaks();
  const int64_t before = GetMemoryUse(MemoryOwner::kWeights).peak;
  LoadOptions options;
  options.planned = [](const DecoderSpec&, const WeightNeed&) { return ResourceExhausted("too large"); };
  EXPECT_EQ(Model::Load(Fixture("llama"), options, pool).status().message(), "too large");
  EXPECT_EQ(GetMemoryUse(MemoryOwner::kWeights).peak, before);
}

TEST(MemoryPlan, PackedFilesArePageCache) {
  const Planned planned = PlanOf("llama");
  WeightNeed mapped = planned.weights;
  mapped.mapped = true;
  const auto plan = PlanMemory(planned.spec, planned.weights, ShapeFor(64));
  const auto mapped_plan = PlanMemory(planned.spec, mapped, ShapeFor(64));
  ASSERT_TRUE(plan.ok() && mapped_plan.ok());
  EXPECT_EQ(plan->Needed() - mapped_plan->Needed(), planned.weights.bytes);
  EXPECT_THAT(plan->Text(1), Not(HasSubstr("page cache")));
  EXPECT_THAT(mapped_plan->Text(1), HasSubstr("page cache, not counted"));
  // They run without free memory of their own, but slowly, and that is said.
  const auto scarce = FitMemory(planned.spec, mapped, ShapeFor(64), mapped_plan->Needed());
  ASSERT_TRUE(scarce.ok()) << scarce.status().message();
  EXPECT_THAT(scarce->note, HasSubstr("again and again"));
  EXPECT_EQ(FitMemory(planned.spec, mapped, ShapeFor(64), plan->Needed())->note, "");
}

TEST(MemoryPlan, TheDefaultContextShrinksToWhatFits) {
  const Planned planned = PlanOf("llama");
  const auto whole = PlanMemory(planned.spec, planned.weights, ShapeFor(planned.spec.context));
  const auto least = PlanMemory(planned.spec, planned.weights, ShapeFor(1));
  ASSERT_TRUE(whole.ok() && least.ok());
  ASSERT_LT(least->Needed(), whole->Needed());

  auto fits = FitMemory(planned.spec, planned.weights, ShapeFor(0), whole->Needed());
  ASSERT_TRUE(fits.ok()) << fits.status().message();
  EXPECT_EQ(fits->context, planned.spec.context);
  EXPECT_EQ(fits->note, "");

  fits = FitMemory(planned.spec, planned.weights, ShapeFor(0), whole->Needed() - 1);
  ASSERT_TRUE(fits.ok()) << fits.status().message();
  EXPECT_LT(fits->context, planned.spec.context);
  EXPECT_LT(fits->Needed(), whole->Needed());
  EXPECT_THAT(fits->note, HasSubstr(fmt::format("context {} of {} tokens", fits->context, planned.spec.context)));
  // One more token would not fit.
  EXPECT_GE(PlanMemory(planned.spec, planned.weights, ShapeFor(fits->context + 1))->Needed(), whole->Needed());

  fits = FitMemory(planned.spec, planned.weights, ShapeFor(0), least->Needed() - 1);
  EXPECT_EQ(fits.status().code(), StatusCode::kResourceExhausted);
}

TEST(MemoryPlan, ARefusalSaysWhatIsNeededAndWhatHelps) {
  Planned planned = PlanOf("llama");  // fp32
  planned.weights.bytes = 4'000'000'000;
  RunShape run = ShapeFor(planned.spec.context);
  run.kv_type = KvType::kF32;
  const auto plan = PlanMemory(planned.spec, planned.weights, run);
  ASSERT_TRUE(plan.ok());
  const Status refused = FitMemory(planned.spec, planned.weights, run, plan->Needed() - 1).status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(),
              AllOf(HasSubstr("needs 4.0 GB, 4.0 GB free: weights 4.0 GB as f32"),
                    HasSubstr(fmt::format("for {} tokens", run.context)), HasSubstr("-c "), HasSubstr("--kv-type bf16"),
                    HasSubstr("--dtype bf16 saves 2.0 GB"), HasSubstr("kvasir pack"), HasSubstr("lower precision")));
  // Where even one token is too much, a smaller -c is no help.
  EXPECT_THAT(FitMemory(planned.spec, planned.weights, run, 1).status().message(), Not(HasSubstr("-c ")));
  // Sizes that nobody has are no overflow.
  run.context = int64_t{1} << 39;
  EXPECT_EQ(FitMemory(planned.spec, planned.weights, run, int64_t{1} << 50).status().code(),
            StatusCode::kResourceExhausted);
}

TEST(MemoryPlan, ABoundedCacheHoldsTextsOfAnyLength) {
  const Planned planned = PlanOf("llama");
  const auto fit = [&](CacheKind kind, KvBound bound, int64_t context = 0) {
    RunShape run = ShapeFor(context);
    run.cache = kind;
    run.bound = bound;
    auto plan = FitMemory(planned.spec, planned.weights, run, int64_t{1} << 40);
    EXPECT_TRUE(plan.ok()) << plan.status().message();
    return *plan;
  };
  const int64_t trained = planned.spec.context;
  for (const CacheKind kind : {CacheKind::kWindow, CacheKind::kSink, CacheKind::kDynamic}) {
    const int64_t sinks = kind == CacheKind::kSink ? 4 : 0;
    const MemoryPlan plan = fit(kind, {32, sinks});
    EXPECT_EQ(plan.context, kMostKvTokens);
    EXPECT_EQ(plan.cached_tokens, 32);
    EXPECT_EQ(plan.note, "");
    EXPECT_THAT(plan.Text(1), HasSubstr("for 32 tokens"));
    // Originals of the sinks' keys: 2 layers of 4 heads of 10, fp32.
    EXPECT_EQ(plan.kv_cache - fit(CacheKind::kDynamic, {}, 32).kv_cache, sinks * 2 * 40 * 4);
    EXPECT_EQ(fit(kind, {32, sinks}, 20).cached_tokens, 20);
    // A long text is no news but to a window, whose positions are those of the text.
    EXPECT_EQ(fit(kind, {32, sinks}, 10 * trained).note.empty(), kind != CacheKind::kWindow);
    EXPECT_THAT(fit(kind, {2 * trained, sinks}).note, HasSubstr("more than the 96 the model was trained on"));
  }
}

TEST(MemoryPlan, ABoundedCacheThatDoesNotFitIsNotShortened) {
  const Planned planned = PlanOf("llama");
  RunShape run = ShapeFor(0);
  run.cache = CacheKind::kSink;
  run.bound = {1'000'000, 4};
  const Status refused = FitMemory(planned.spec, planned.weights, run, 100'000'000).status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("for 1000000 tokens"), HasSubstr("a --cache of ")));
  EXPECT_THAT(refused.message(), Not(HasSubstr("-c ")));
  EXPECT_THAT(FitMemory(planned.spec, planned.weights, run, 1).status().message(), Not(HasSubstr("a --cache of ")));
}

TEST(MemoryPlan, APoolIsCountedExactlyAndLimitsTheContext) {
  const Planned planned = PlanOf("llama");
  RunShape run = ShapeFor(0);
  run.cache = CacheKind::kPaged;
  run.sequences = 3;
  const auto fit = [&](int64_t available = int64_t{1} << 40) {
    return FitMemory(planned.spec, planned.weights, run, available);
  };
  // 96 tokens in blocks of 32, of 2 layers with 4 heads of 10 in bf16: K and V tiles of 320 bytes.
  constexpr int64_t kBlockBytes = int64_t{2} * 4 * 2 * 2 * 320;
  EXPECT_EQ(fit()->kv_cache, 3 * 3 * kBlockBytes);
  EXPECT_EQ(fit()->pool_tokens, 288);
  EXPECT_THAT(fit()->Text(1), HasSubstr("for 288 tokens"));
  // What does not fit makes the context smaller.
  run.context = 64;
  const int64_t needed = fit()->Needed();
  run.context = 0;
  const auto less = fit(needed);
  ASSERT_TRUE(less.ok()) << less.status().message();
  EXPECT_EQ(less->context, 64);
  EXPECT_EQ(less->pool_tokens, 3 * 64);
  run.block_tokens = 16;
  run.pool_tokens = 50;
  EXPECT_EQ(fit()->kv_cache, 4 * kBlockBytes / 2);
  EXPECT_EQ(fit()->context, 50);
  run.context = 51;
  EXPECT_THAT(fit().status().message(), HasSubstr("--pool-tokens 50 are too few for one sequence of -c 51"));
  run.context = 50;
  run.pool_tokens = int64_t{1} << 40;
  const Status refused = fit().status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("--pool-tokens "), Not(HasSubstr("-c "))));
  run.pool_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(fit().status().code(), StatusCode::kResourceExhausted);
  run.pool_tokens = 0;
  run.block_tokens = 24;
  EXPECT_EQ(fit().status().code(), StatusCode::kInvalidArgument);
}

TEST(MemoryPlan, SizesReadWell) {
  EXPECT_EQ(GigabytesText(1536), "1.5 kB");
  EXPECT_EQ(GigabytesText(12'345), "12 kB");
  EXPECT_EQ(GigabytesText(6'300'000), "6.3 MB");
  EXPECT_EQ(GigabytesText(45'900'000), "46 MB");
  EXPECT_EQ(GigabytesText(999'700'000), "1.0 GB");
  EXPECT_EQ(GigabytesText(23'100'000'000), "23.1 GB");
}

}  // namespace
}  // namespace kvasir
