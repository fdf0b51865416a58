// A3: one query over a long cache, as a share of the speed at which memory is read.
#include <algorithm>

#include "apps/bench_run.h"
#include "apps/techniques/attention_layer.h"
#include "apps/techniques/technique.h"
#include "base/checked.h"
#include "base/limits.h"

namespace kvasir::apps {
namespace {

struct Heads {
  std::string_view name;
  int32_t n_heads;
  int32_t kv_heads;
};
constexpr Heads kHeads[] = {{"GQA 8:1", 32, 4}, {"MHA", 8, 8}};
constexpr int32_t kHeadDim = 128;

struct Speed {
  double seconds = 0;      // of one query; the medians of rounds
  double bytes_per_s = 0;  // of keys, values and scales
  double reading = 0;      // bytes per second, between the queries
  double percent = 0;
};

/// Rounds over all sequences of `tokens` tokens that the layer's cache has room for. Between two queries a piece of
/// memory is read, whose rate is the limit.
Result<Speed> Measure(TechniqueBench& bench, const AttentionLayer& layer, int64_t room, int64_t tokens) {
  constexpr int64_t kLeastRead = int64_t{16} << 20;
  constexpr int64_t kMostRead = int64_t{256} << 20;
  ExecContext ctx = bench.ctx;
  std::vector<double> seconds, rates, readings, shares;
  for (int32_t round = -1; round < bench.repetitions; ++round) {  // the first is for warming up
    ctx.counters = {};
    double time = 0;
    double read_seconds_per_byte = 0;
    double calls = 0;
    for (int64_t begin = 0; begin + tokens <= room; begin += tokens, ++calls) {
      const AttentionArgs args = layer.Decode(begin, tokens);
      ASSIGN_OR_RETURN(const double call, TimeOf([&] { return Attention(ctx, {&args, 1}); }));
      time += call;
      const int64_t per_call = ctx.counters.kv_bytes / static_cast<int64_t>(calls + 1);
      read_seconds_per_byte += 1 / bench.meter->ReadSome(std::clamp(per_call, kLeastRead, kMostRead));
    }
    if (round < 0) continue;
    seconds.push_back(time / calls);
    rates.push_back(static_cast<double>(ctx.counters.kv_bytes) / time);
    readings.push_back(calls / read_seconds_per_byte);
    shares.push_back(100 * rates.back() / readings.back());
  }
  return Speed{Median(seconds), Median(rates), Median(readings), Median(shares)};
}

}  // namespace

Result<Section> MeasureAttentionDecode(TechniqueBench& bench) {
  const std::vector<int64_t> lengths =
      bench.quick ? std::vector<int64_t>{256, 1024} : std::vector<int64_t>{1024, 4096, 16384, 65536};
  const int64_t least_bytes = bench.quick ? 1 << 20 : std::max(int64_t{256} << 20, 4 * LastLevelCacheBytes());
  Section section;
  section.notes = {
      fmt::format("One new token of one sequence attends to its whole cache in one layer; heads of {} values, {} query "
                  "heads on {} KV heads (GQA) or {} on {} (MHA). Calls go round over sequences that take {} together "
                  "or more, so that keys and values come from memory.",
                  kHeadDim, kHeads[0].n_heads, kHeads[0].kv_heads, kHeads[1].n_heads, kHeads[1].kv_heads,
                  GigabytesText(least_bytes)),
      "Counted are the bytes of keys, values and scales. The limit is reading memory, measured between the calls. "
      "i8 and i4 read so little that computing may bind them first."};
  section.columns = {{.key = "heads", .title = "heads"},
                     {.key = "kv_type", .title = "cache"},
                     {.key = "tokens", .title = "tokens"},
                     {.key = "kv_bytes", .title = "cache read", .bytes = true},
                     {.key = "seconds", .title = "ms", .unit = 1e-3, .decimals = 3},
                     {.key = "bytes_per_s", .title = "GB/s", .unit = 1e9, .decimals = 1},
                     {.key = "read_bytes_per_s", .title = "reading, GB/s", .unit = 1e9, .decimals = 1},
                     {.key = "pct_of_reading", .title = "% of reading", .decimals = 1}};
  for (const Heads& heads : kHeads) {
    Plot plot{.title = fmt::format("Attention while decoding, {}: share of the speed of reading", heads.name),
              .x = {.label = "tokens in the cache", .unit = AxisUnit::kTokens, .log = true},
              .y = {.label = "% of reading memory"},
              .series = {},
              .bars = {}};
    for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4}) {
      plot.series.push_back({.name = std::string(KvTypeName(type)), .points = {}});
      const LayerShape shape{type, heads.n_heads, heads.kv_heads, kHeadDim};
      const int64_t per_token = heads.kv_heads * KvTokenBytes(type, kHeadDim);
      const int64_t room = RoundUp(std::max(CeilDiv(least_bytes, per_token), lengths.back()), lengths.back());
      ASSIGN_OR_RETURN(const AttentionLayer layer, AttentionLayer::Make(bench.ctx, shape, room, 1));
      for (const int64_t tokens : lengths) {
        ASSIGN_OR_RETURN(const Speed speed, Measure(bench, layer, room, tokens));
        section.rows.push_back({std::string(heads.name), std::string(KvTypeName(type)), tokens, tokens * per_token,
                                speed.seconds, speed.bytes_per_s, speed.reading, speed.percent});
        plot.series.back().points.emplace_back(static_cast<double>(tokens), speed.percent);
      }
    }
    section.plots.push_back(std::move(plot));
  }
  return section;
}

}  // namespace kvasir::apps
