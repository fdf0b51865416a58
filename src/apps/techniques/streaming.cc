// A9 to A11, K4: a text longer than any context, read token by token by caches that forget.
#include <algorithm>
#include <cmath>

#include "apps/bench_run.h"
#include "apps/stream_losses.h"
#include "apps/techniques/technique.h"
#include "base/checked.h"
#include "model/model.h"

namespace kvasir::apps {
namespace {

constexpr int64_t kTableParts = 5;
/// Tokens from one to the next that is scored where each takes a run of the whole window.
constexpr int64_t kRecomputeEvery = 25;
constexpr int64_t kSinks = 4;

struct StreamCase {
  CachePolicy policy;
  int64_t every = 1;
  StreamLosses scored;
  int64_t cache_bytes = 0;
  std::string refused;  // why the model cannot be run so; empty: it was

  double MillisecondsPerToken() const {
    std::vector<double> each;
    for (const StreamPart& part : scored.parts) {
      each.push_back(1e3 * part.seconds / static_cast<double>(part.losses.count));
    }
    return Median(each);
  }
};

/// The tokens that the caches keep: what the model was trained on, and less than the stream by far.
Result<int64_t> KeptTokens(const TechniqueBench& bench, int64_t stream) {
  ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(bench.model->model));
  ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(path));
  const int64_t most = bench.quick ? 32 : 1024;
  const int64_t trained = files.spec.context > 0 ? files.spec.context : most;
  return std::max(std::min({most, trained, stream / 4}), kSinks + 1);
}

/// Runs one of the caches over the stream, or says why it cannot be.
Status RunCase(const TechniqueBench& bench, int64_t part_tokens, StreamCase& test, int64_t& whole_bytes) {
  const auto length = static_cast<int64_t>(bench.stream->size());
  auto loaded = LoadTechniqueEngine(bench, test.policy, length);
  if (loaded.status().code() == StatusCode::kInvalidArgument || loaded.status().code() == StatusCode::kUnsupported) {
    test.refused = loaded.status().message();
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, std::move(loaded));
  ASSIGN_OR_RETURN(test.scored, ScoreStream(*engine, *bench.stream, test.every, part_tokens));
  test.cache_bytes = engine->cache().BytesFor(test.policy.bound.tokens);
  whole_bytes = KvBytesPerToken(engine->model().kv_shapes(), engine->memory_plan().kv_type) * length;
  return OkStatus();
}

Cell Finite(double value) { return std::isfinite(value) ? Cell(value) : Cell(); }

/// The perplexity of the table's `part`-th part.
Cell PartPerplexity(const StreamCase& test, int64_t part, int64_t part_tokens) {
  Losses losses;
  for (const StreamPart& small : test.scored.parts) {
    if ((small.end - 1) / part_tokens == part) losses.Add(small.losses);
  }
  return losses.count > 0 ? Finite(losses.Perplexity()) : Cell();
}

}  // namespace

Result<Section> MeasureStreaming(TechniqueBench& bench) {
  Section section;
  if (bench.stream == nullptr) {
    section.notes = {"Not measured: give a text with --text FILE."};
    return section;
  }
  const auto length = static_cast<int64_t>(bench.stream->size());
  ASSIGN_OR_RETURN(const int64_t kept, KeptTokens(bench, length));
  // The plot's parts divide those of the table, and each has tokens that are scored.
  const int64_t finer = std::clamp<int64_t>(length / (kTableParts * 8 * kRecomputeEvery), 1, 10);
  const int64_t part_tokens = CeilDiv(length, kTableParts * finer);
  StreamCase cases[] = {
      {.policy = {CacheMode::kWindow, {.tokens = kept}}, .scored = {}, .refused = {}},
      {.policy = {CacheMode::kRecompute, {.tokens = kept}}, .every = kRecomputeEvery, .scored = {}, .refused = {}},
      {.policy = {CacheMode::kSink, {.tokens = kept, .sinks = kSinks}}, .scored = {}, .refused = {}}};
  int64_t whole_bytes = 0;
  for (StreamCase& test : cases) RETURN_IF_ERROR(RunCase(bench, part_tokens, test, whole_bytes));

  section.notes = {
      fmt::format(
          "{} tokens of a text, read once from end to end, each scored from what the cache keeps of those before "
          "it: window (A9) the last {}, recompute (A10) the same, run again for every token, of which every {}th "
          "is scored, sink (A11) the first {} and the last {}. Perplexities are of a fifth of the stream each; "
          "the time of a scored token is the median over {} parts.",
          length, kept, kRecomputeEvery, kSinks, kept - kSinks, cases[0].scored.parts.size()),
      "Published (StreamingLLM, Xiao 2023, arXiv:2309.17453): the first book of PG-19 by a model of 13 B parameters with 1,024 tokens "
      "kept: perplexity 5158 with a window, 5.43 recomputed, 5.40 with 4 sinks, up to 22.2 times as fast as "
      "recomputing. How far a window falls depends on how much a model leans on its first tokens."};
  section.columns = {{.key = "cache", .title = "--cache"},
                     {.key = "scored_tokens", .title = "tokens scored"},
                     {.key = "ppl", .title = "perplexity", .decimals = 2}};
  for (int64_t part = 0; part < kTableParts; ++part) {
    const int64_t end = std::min((part + 1) * part_tokens * finer, length);
    section.columns.push_back({.key = fmt::format("ppl_{}", part + 1),
                               .title = part == 0 ? fmt::format("of tokens up to {}", end) : fmt::format("to {}", end),
                               .decimals = 2});
  }
  section.columns.push_back({.key = "ms_per_token", .title = "ms a token", .decimals = 3});
  section.columns.push_back({.key = "time_ratio", .title = "times the sinks'", .decimals = 2});
  section.columns.push_back({.key = "cache_bytes", .title = "cache", .bytes = true});
  Plot plot{.title = "Perplexity over a stream",
            .x = {.label = "tokens of the text", .unit = AxisUnit::kTokens},
            .y = {.label = "perplexity", .log = true},
            .series = {},
            .bars = {}};
  const StreamCase& sink = cases[std::size(cases) - 1];
  for (const StreamCase& test : cases) {
    if (!test.refused.empty()) {
      section.notes.push_back(fmt::format("Not measured with {}: {}", test.policy.Text(), test.refused));
      continue;
    }
    std::vector<Cell> row = {test.policy.Text(), test.scored.all.count, Finite(test.scored.all.Perplexity())};
    for (int64_t part = 0; part < kTableParts; ++part) {
      row.push_back(PartPerplexity(test, part, part_tokens * finer));
    }
    const double ms = test.MillisecondsPerToken();
    row.emplace_back(ms);
    row.push_back(sink.refused.empty() ? Cell(ms / sink.MillisecondsPerToken()) : Cell());
    row.emplace_back(test.cache_bytes);
    section.rows.push_back(std::move(row));
    Series series{.name = test.policy.Text(), .points = {}};
    for (const StreamPart& part : test.scored.parts) {
      const double perplexity = part.losses.Perplexity();
      if (std::isfinite(perplexity)) series.points.emplace_back(static_cast<double>(part.end), perplexity);
    }
    plot.series.push_back(std::move(series));
  }
  if (section.rows.empty()) return section;
  std::vector<Cell> whole(section.columns.size());
  whole.front() = std::string("every token kept (not run)");
  whole.back() = whole_bytes;
  section.rows.push_back(std::move(whole));
  section.plots.push_back(std::move(plot));
  return section;
}

}  // namespace kvasir::apps
