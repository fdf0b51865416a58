// A2's speed in prompts, as a share of what the processor multiplies, beside A1 made of the same products.
#include <cmath>

#include "apps/bench_run.h"
#include "apps/techniques/attention_products.h"
#include "apps/techniques/technique.h"
#include "base/limits.h"

namespace kvasir::apps {
namespace {

struct Speed {
  double seconds = 0;  // medians
  double plain_seconds = 0;
  double softmax_seconds = 0;   // of plain_seconds
  double ratio = 0;             // of neighbouring runs
  double products_ratio = 0;    // the same with A1's softmax left out
  double flops = 0;             // of products that causal attention needs
  double peak_flops_per_s = 0;  // measured around the runs
  double percent = 0;           // of it
  double difference = 0;        // the greatest between the outputs of the two
};

double GreatestDifference(MatView<const float> a, const std::vector<float>& b) {
  double greatest = 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      const double difference = std::abs(double{a.row(r)[c]} - double{b[static_cast<size_t>(r * a.cols + c)]});
      if (!(difference <= greatest)) greatest = difference;  // a NaN stays
    }
  }
  return greatest;
}

Result<Speed> Measure(TechniqueBench& bench, const LayerShape& shape, int64_t tokens) {
  if (const int64_t scores = 4 * tokens * tokens; scores > AvailableMemory()) {
    return ResourceExhausted("the scores of {} tokens take {}, {} are free; give a smaller --longest", tokens,
                             GigabytesText(scores), GigabytesText(AvailableMemory()));
  }
  ASSIGN_OR_RETURN(const AttentionLayer layer, AttentionLayer::Make(bench.ctx, shape, tokens, tokens));
  ASSIGN_OR_RETURN(const AttentionByProducts plain, AttentionByProducts::Make(layer, tokens));
  ExecContext ctx = bench.ctx;
  const AttentionArgs args = layer.Prompt(tokens);
  const auto run_tiles = [&] { return Attention(ctx, {&args, 1}); };
  double softmax = 0;
  const auto run_plain = [&] {
    softmax = 0;
    return plain.Run(ctx, &softmax);
  };

  // Warming up, and a look at whether both compute the same.
  ctx.counters = {};
  RETURN_IF_ERROR(run_tiles());
  Speed speed{.flops = static_cast<double>(ctx.counters.attention_flops)};
  const MatView<const float> out = layer.out();
  const std::vector<float> tiled(out.data, out.data + out.rows * out.cols);
  RETURN_IF_ERROR(run_plain());
  speed.difference = GreatestDifference(out, tiled);

  std::vector<double> times, plain_times, softmax_times, ratios, products_ratios, peaks, shares;
  const auto peak_now = [&] {
    const Ceilings now = bench.meter->Now();
    return shape.type == KvType::kBF16 ? now.bf16_flops : now.fp32_flops;
  };
  double before = peak_now();
  for (int32_t i = 0; i < bench.repetitions; ++i) {
    double time = 0;
    double plain_time = 0;
    for (const bool tiles : {i % 2 == 0, i % 2 != 0}) {
      if (!tiles) {
        ASSIGN_OR_RETURN(plain_time, TimeOf(run_plain));
        continue;
      }
      if (i % 2 != 0) before = peak_now();
      ASSIGN_OR_RETURN(time, TimeOf(run_tiles));
      const double after = peak_now();
      peaks.push_back((before + after) / 2);
      before = after;
    }
    times.push_back(time);
    plain_times.push_back(plain_time);
    softmax_times.push_back(softmax);
    ratios.push_back(plain_time / time);
    products_ratios.push_back((plain_time - softmax) / time);
    shares.push_back(100 * speed.flops / time / peaks.back());
  }
  speed.seconds = Median(times);
  speed.plain_seconds = Median(plain_times);
  speed.softmax_seconds = Median(softmax_times);
  speed.ratio = Median(ratios);
  speed.products_ratio = Median(products_ratios);
  speed.peak_flops_per_s = Median(peaks);
  speed.percent = Median(shares);
  return speed;
}

}  // namespace

Result<Section> MeasureAttentionSpeed(TechniqueBench& bench) {
  const int64_t first = bench.quick ? 256 : 1024;
  const int64_t last = bench.quick ? 512 : bench.longest;
  Section section;
  section.notes = {
      "Causal attention of a whole prompt to itself in one layer, MHA: 4 heads of 128 values, or 8 of 64. Counted are "
      "the products that causal attention needs: 2·T²·heads·head size operations. The peak is that of multiply-adds "
      "in the cache's type, measured in this process around each run.",
      "A1 here uses the same matrix kernels: Q·Kᵀ by blocks into a whole matrix of T² fp32 scores, softmax over its "
      "rows in plain fp32 code, times V, one head after the other; blocks above the diagonal are left out, and keys "
      "and values are packed beforehand. (The engine's own --attention plain is a definition, not a fast kernel.) "
      "Each ratio is of neighbouring runs, in turns first and second; \"no softmax\" leaves the time of A1's softmax "
      "out, which other code might do faster, but not that of A2's own.",
      "Published for comparison (FlashAttention in a model of 15.5 B parameters on a GPU, a prompt of ten system "
      "prompts and its answer): 10.97 s to 3.02 s, 3.6 times as fast, and 37.7 GB to 32.6 GB."};
  section.columns = {{.key = "kv_type", .title = "cache"},
                     {.key = "head_dim", .title = "head size"},
                     {.key = "tokens", .title = "tokens"},
                     {.key = "a2_seconds", .title = "A2, ms", .unit = 1e-3, .decimals = 2},
                     {.key = "a1_seconds", .title = "A1, ms", .unit = 1e-3, .decimals = 2},
                     {.key = "a1_softmax_seconds", .title = "of it softmax", .unit = 1e-3, .decimals = 2},
                     {.key = "ratio", .title = "A1 / A2", .decimals = 2},
                     {.key = "products_ratio", .title = "no softmax", .decimals = 2},
                     {.key = "a2_flops_per_s", .title = "A2, TFLOP/s", .unit = 1e12, .decimals = 3},
                     {.key = "peak_flops_per_s", .title = "peak, TFLOP/s", .unit = 1e12, .decimals = 3},
                     {.key = "a2_pct_of_peak", .title = "A2, % of peak", .decimals = 1},
                     {.key = "greatest_difference", .title = "differ by", .decimals = 6}};
  Plot shares{.title = "A2: share of the processor's peak",
              .x = {.label = "tokens of the prompt", .unit = AxisUnit::kTokens, .log = true},
              .y = {.label = "% of the peak of multiply-adds"},
              .series = {},
              .bars = {}};
  Plot ratios{.title = "A2 against A1 on the same matrix kernels",
              .x = shares.x,
              .y = {.label = "times as fast"},
              .series = {},
              .bars = {}};
  for (const KvType type : {KvType::kBF16, KvType::kF32}) {
    for (const int32_t head_dim : {128, 64}) {
      const int32_t heads = 512 / head_dim;
      const std::string name = fmt::format("{}, heads of {}", KvTypeName(type), head_dim);
      shares.series.push_back({.name = name, .points = {}});
      ratios.series.push_back({.name = name, .points = {}});
      for (int64_t tokens = first; tokens <= last; tokens *= 2) {
        ASSIGN_OR_RETURN(const Speed speed, Measure(bench, {type, heads, heads, head_dim}, tokens));
        section.rows.push_back({std::string(KvTypeName(type)), int64_t{head_dim}, tokens, speed.seconds,
                                speed.plain_seconds, speed.softmax_seconds, speed.ratio, speed.products_ratio,
                                speed.flops / speed.seconds, speed.peak_flops_per_s, speed.percent, speed.difference});
        shares.series.back().points.emplace_back(static_cast<double>(tokens), speed.percent);
        ratios.series.back().points.emplace_back(static_cast<double>(tokens), speed.ratio);
      }
    }
  }
  section.plots = {std::move(shares), std::move(ratios)};
  return section;
}

}  // namespace kvasir::apps
