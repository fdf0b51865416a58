// K7: what a KV cache of fewer bits takes, and how fast a model decodes with it.
#include <algorithm>

#include "apps/bench_run.h"
#include "apps/techniques/technique.h"
#include "base/limits.h"

namespace kvasir::apps {

Result<Section> MeasureCacheTypes(TechniqueBench& bench) {
  constexpr KvType kTypes[] = {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4};
  constexpr int64_t kChunk = 512;
  BenchTest test{.prefill = false, .tokens = bench.quick ? 8 : 64, .batch = 1, .depth = bench.quick ? 100 : 4032};
  ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(bench.model->model));
  ExecContext ctx = bench.ctx;
  EngineOptions options = bench.model->Options();
  options.prefill_chunk = kChunk;
  options.max_sequences = 1;
  options.kv_type = KvType::kF32;  // takes most
  LoadOptions load;
  load.planned = [&](const DecoderSpec& spec, const WeightNeed& weights) -> Status {
    // Positions in a table end where it does.
    if (const auto* learned = std::get_if<LearnedPosition>(&spec.position)) {
      test.depth = std::max<int64_t>(std::min(test.depth, learned->rows - learned->offset - test.tokens), 0);
    }
    options.context = test.Length();
    const RunShape run = PlannedRun(options, weights, ctx.pool->size(), *ctx.kernels);
    ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(spec, weights, run));
    return CheckFits(plan, spec, weights, run, AvailableMemory());
  };
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Model::Load(path, load, *ctx.pool));

  struct Measured {
    std::vector<double> tok_s;
    int64_t cache_bytes = 0;
  };
  Measured measured[std::size(kTypes)];
  const int32_t rounds = bench.quick ? 1 : 2 * bench.repetitions;
  for (int32_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < std::size(kTypes); ++i) {
      Arena arena;
      ctx.scratch = &arena;
      options.kv_type = kTypes[i];
      const RunShape run = PlannedRun(options, {.dtypes = {model->dtype()}}, ctx.pool->size(), *ctx.kernels);
      ASSIGN_OR_RETURN(const std::unique_ptr<KvCache> cache,
                       MakeKvCache(run.cache, CacheConfig(model->spec(), model->kv_shapes(), run)));
      StepRunner runner(*model, *cache, ctx, kChunk, {});
      ASSIGN_OR_RETURN(const BenchResult result, RunBenchTest(test, 1, *model, *cache, runner, nullptr));
      measured[i].tok_s.push_back(result.Median());
      measured[i].cache_bytes = cache->BytesFor(test.Length());
    }
  }

  Section section;
  section.notes = {fmt::format(
      "{} tokens decoded behind {} tokens in the cache by a model of {} of weights, {} rounds over all types; medians. "
      "The smaller the share of the cache in what a step reads, the less its type changes: attention-decode shows "
      "attention alone.",
      test.tokens, test.depth, GigabytesText(model->weight_bytes()), rounds)};
  section.columns = {{.key = "kv_type", .title = "--kv-type"},
                     {.key = "bytes_per_token", .title = "bytes a token"},
                     {.key = "cache_bytes", .title = "cache", .bytes = true},
                     {.key = "pct_of_bf16_bytes", .title = "% of bf16", .decimals = 1},
                     {.key = "tok_s", .title = "tok/s", .decimals = 1},
                     {.key = "speed_of_bf16", .title = "times bf16's", .decimals = 2}};
  Plot speed{.title = fmt::format("Decoding behind {} tokens", test.depth),
             .x = {.label = "tokens per second"},
             .y = {},
             .series = {},
             .bars = {}};
  Plot bytes{.title = "Bytes of a token in all layers", .x = {.label = "bytes"}, .y = {}, .series = {}, .bars = {}};
  constexpr size_t kBf16 = 1;
  const auto per_token = [&](size_t i) { return KvBytesPerToken(model->kv_shapes(), kTypes[i]); };
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    const double tok_s = Median(measured[i].tok_s);
    const std::string name(KvTypeName(kTypes[i]));
    const auto token_bytes = static_cast<double>(per_token(i));
    section.rows.push_back({name, per_token(i), measured[i].cache_bytes,
                            100 * token_bytes / static_cast<double>(per_token(kBf16)), tok_s,
                            tok_s / Median(measured[kBf16].tok_s)});
    speed.bars.push_back({name, tok_s, fmt::format("{:.0f} tok/s", tok_s)});
    bytes.bars.push_back({name, token_bytes, fmt::format("{} B", per_token(i))});
  }
  section.plots = {std::move(bytes), std::move(speed)};
  return section;
}

}  // namespace kvasir::apps
