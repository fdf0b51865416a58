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
  std::unique_ptr<Engine> engine;
  std::string refused;  // why the model cannot be run so; empty: it was
  StreamLosses scored;
  std::vector<double> ms_per_token;  // of each round
};

/// The tokens that the caches keep: what the model was trained on, and less than the stream by far.
Result<int64_t> KeptTokens(const TechniqueBench& bench, int64_t stream) {
  ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(bench.model->model));
  ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(path));
  const int64_t most = bench.quick ? 32 : 1024;
  const int64_t trained = files.spec.context > 0 ? files.spec.context : most;
  return std::max(std::min({most, trained, stream / 4}), kSinks + 1);
}

Status Load(const TechniqueBench& bench, StreamCase& test) {
  auto loaded = LoadTechniqueEngine(bench, test.policy, static_cast<int64_t>(bench.stream->size()));
  if (loaded.status().code() == StatusCode::kInvalidArgument || loaded.status().code() == StatusCode::kUnsupported) {
    test.refused = loaded.status().message();
    return OkStatus();
  }
  ASSIGN_OR_RETURN(test.engine, std::move(loaded));
  return OkStatus();
}

/// Reads the beginning of the stream again, all caches in alternation, and counts the time from where they are full.
Status TimeRounds(const TechniqueBench& bench, int64_t kept, std::span<StreamCase> cases) {
  const auto length = static_cast<int64_t>(bench.stream->size());
  const auto tokens = std::span(*bench.stream).first(static_cast<size_t>(std::min(length, 6 * kept)));
  for (int32_t round = 0; round < bench.repetitions; ++round) {
    for (StreamCase& test : cases) {
      if (!test.engine) continue;
      ASSIGN_OR_RETURN(const StreamLosses scored, ScoreStream(*test.engine, tokens, test.every, kept));
      double seconds = 0;
      int64_t count = 0;
      for (const StreamPart& part : scored.parts) {
        if (part.end <= 2 * kept) continue;
        seconds += part.seconds;
        count += part.losses.count;
      }
      test.ms_per_token.push_back(1e3 * seconds / static_cast<double>(count));
    }
  }
  return OkStatus();
}

/// The median of the rounds' ratios.
Cell TimeRatio(const StreamCase& test, const StreamCase& baseline) {
  if (!baseline.engine) return {};
  std::vector<double> ratios;
  ratios.reserve(test.ms_per_token.size());
  for (size_t i = 0; i < test.ms_per_token.size(); ++i) {
    ratios.push_back(test.ms_per_token[i] / baseline.ms_per_token[i]);
  }
  return Median(ratios);
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
  // The plot's parts divide those of the table, and few have less than a hundred tokens that are scored.
  const int64_t finer = std::clamp<int64_t>(length / (kTableParts * 100 * kRecomputeEvery), 1, 10);
  const int64_t part_tokens = CeilDiv(length, kTableParts * finer);
  StreamCase cases[3];
  cases[0].policy = {CacheMode::kWindow, {.tokens = kept}};
  cases[1].policy = {CacheMode::kRecompute, {.tokens = kept}};
  cases[1].every = kRecomputeEvery;
  cases[2].policy = {CacheMode::kSink, {.tokens = kept, .sinks = kSinks}};
  for (StreamCase& test : cases) {
    RETURN_IF_ERROR(Load(bench, test));
    if (!test.engine) continue;
    ASSIGN_OR_RETURN(test.scored, ScoreStream(*test.engine, *bench.stream, test.every, part_tokens));
  }
  RETURN_IF_ERROR(TimeRounds(bench, kept, cases));

  section.notes = {
      fmt::format(
          "{} tokens of a text, read once from end to end, each scored from what the cache keeps of those before "
          "it: window (A9) the last {}, recompute (A10) the same, run again for every token, of which every {}th "
          "is scored, sink (A11) the first {} and the last {}. Perplexities are of a fifth of the stream each. The "
          "time is that of a scored token once the caches are full, the median of {} runs in alternation.",
          length, kept, kRecomputeEvery, kSinks, kept - kSinks, bench.repetitions),
      "Published (StreamingLLM, Xiao 2023, arXiv:2309.17453): the first book of PG-19 by a model of 13 B with 1,024 "
      "tokens kept: perplexity 5158 with a window, 5.43 recomputed, 5.40 with 4 sinks, up to 22.2 times as fast as "
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
  int64_t whole_bytes = 0;
  for (const StreamCase& test : cases) {
    if (!test.refused.empty()) {
      section.notes.push_back(fmt::format("Not measured with {}: {}", test.policy.Text(), test.refused));
      continue;
    }
    std::vector<Cell> row = {test.policy.Text(), test.scored.all.count, Finite(test.scored.all.Perplexity())};
    for (int64_t part = 0; part < kTableParts; ++part) {
      row.push_back(PartPerplexity(test, part, part_tokens * finer));
    }
    row.emplace_back(Median(test.ms_per_token));
    row.push_back(TimeRatio(test, cases[2]));
    row.emplace_back(test.engine->cache().BytesFor(kept));
    whole_bytes = KvBytesPerToken(test.engine->model().kv_shapes(), test.engine->memory_plan().kv_type) * length;
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
