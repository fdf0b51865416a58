// A6 to A8: what leaving keys out saves.
#include "apps/bench_run.h"
#include "apps/model_flags.h"
#include "apps/techniques/attention_layer.h"
#include "apps/techniques/technique.h"

namespace kvasir::apps {

Result<Section> MeasureAttentionPatterns(TechniqueBench& bench) {
  constexpr LayerShape kShape{.type = KvType::kBF16, .n_heads = 4, .kv_heads = 4, .head_dim = 128};
  const int64_t tokens = bench.quick ? 1024 : 16384;
  struct Pattern {
    std::string_view id;
    AttentionMode mode;
  };
  const Pattern patterns[] = {{"A7", {.pattern = AttentionPattern::kLocal, .k = 256}},
                              {"A6", {.pattern = AttentionPattern::kAtrous, .k = 64}},
                              {"A8", {.pattern = AttentionPattern::kSparse, .k = 64}}};
  Section section;
  section.notes = {fmt::format(
      "Causal attention of a prompt of {} tokens to itself in one layer of {} heads of {} values, cache in bf16. Each "
      "run has full attention (A2) as its neighbour, in turns first and second; ratios are of neighbours. Work is the "
      "number of products of a query with a key.",
      tokens, kShape.n_heads, kShape.head_dim)};
  section.columns = {{.key = "id", .title = "technique"},
                     {.key = "attention", .title = "--attention"},
                     {.key = "tokens", .title = "tokens"},
                     {.key = "seconds", .title = "ms", .unit = 1e-3, .decimals = 2},
                     {.key = "full_seconds", .title = "full, ms", .unit = 1e-3, .decimals = 2},
                     {.key = "time_ratio", .title = "times as fast", .decimals = 1},
                     {.key = "work_ratio", .title = "times less work", .decimals = 1}};
  Plot plot{
      .title = "Times as fast as full attention", .x = {.label = "times as fast"}, .y = {}, .series = {}, .bars = {}};
  ASSIGN_OR_RETURN(const AttentionLayer layer, AttentionLayer::Make(bench.ctx, kShape, tokens, tokens));
  ExecContext ctx = bench.ctx;
  const AttentionArgs full = layer.Prompt(tokens);
  const auto run = [&](const AttentionArgs& args) {
    ctx.counters = {};
    return Attention(ctx, {&args, 1});
  };
  RETURN_IF_ERROR(run(full));
  const auto full_work = static_cast<double>(ctx.counters.attention_flops);
  for (const auto& [id, mode] : patterns) {
    AttentionArgs args = full;
    const LayerPattern layer_pattern = PatternOf(mode, 0, 0);
    args.window = layer_pattern.window;
    args.stride = layer_pattern.stride;
    args.local = layer_pattern.local;
    RETURN_IF_ERROR(run(args));
    const auto work = static_cast<double>(ctx.counters.attention_flops);
    std::vector<double> times, full_times, ratios;
    for (int32_t i = 0; i < bench.repetitions; ++i) {
      for (const bool whole : {i % 2 == 0, i % 2 != 0}) {
        ASSIGN_OR_RETURN(const double time, TimeOf([&] { return run(whole ? full : args); }));
        (whole ? full_times : times).push_back(time);
      }
      ratios.push_back(full_times.back() / times.back());
    }
    const std::string name = AttentionText(mode);
    section.rows.push_back(
        {std::string(id), name, tokens, Median(times), Median(full_times), Median(ratios), full_work / work});
    plot.bars.push_back({fmt::format("{} ({})", name, id), Median(ratios), fmt::format("{:.1f} ×", Median(ratios))});
  }
  section.plots.push_back(std::move(plot));
  return section;
}

}  // namespace kvasir::apps
