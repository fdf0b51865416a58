#include "apps/serve_load/load_report.h"

#include <boost/json/array.hpp>

#include <algorithm>
#include <cmath>

#include "apps/statistics.h"
#include "apps/techniques/plot_svg.h"

namespace kvasir::apps {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

constexpr std::pair<std::string_view, Distribution LoadSummary::*> kLatencies[] = {
    {"ttft_ms", &LoadSummary::ttft_ms}, {"tpot_ms", &LoadSummary::tpot_ms}, {"itl_ms", &LoadSummary::itl_ms},
    {"e2e_ms", &LoadSummary::e2e_ms},   {"late_ms", &LoadSummary::late_ms},
};

template <class T>
value OrNull(const std::optional<T>& number) {
  return number ? value(*number) : value();
}

object DistributionJson(const Distribution& d) {
  object json{{"count", d.count}};
  const std::pair<const char*, double> figures[] = {{"mean", d.mean}, {"sd", d.sd},   {"median", d.p50},
                                                    {"p50", d.p50},   {"p90", d.p90}, {"p95", d.p95},
                                                    {"p99", d.p99},   {"max", d.max}};
  for (const auto& [key, figure] : figures) json[key] = d.count > 0 ? value(figure) : value();
  return json;
}

/// A table's row: a name and its figures.
std::string LatencyRow(std::string_view name, const Distribution& d) {
  std::string row = fmt::format("{:<18}", name);
  if (d.count == 0) return row + "  none\n";
  for (const double figure : {d.mean, d.p50, d.p90, d.p95, d.p99, d.max}) row += fmt::format("{:>11.2f}", figure);
  return row + "\n";
}

std::string RateText(const WorkloadSettings& workload) {
  if (workload.rate && std::isinf(*workload.rate)) return "all at once";
  if (!workload.rate) return workload.trace != nullptr ? "at the trace's times" : "all at once";
  const std::string kind = workload.burstiness == 1 ? "Poisson" : fmt::format("burstiness {}", workload.burstiness);
  return fmt::format("{} requests/s ({})", *workload.rate, kind);
}

std::string HowText(const LoadSettings& settings) {
  const WorkloadSettings& workload = settings.workload;
  const LoadTarget& target = settings.target;
  std::string text = fmt::format("{}, prompts of {}, arriving {}",
                                 target.ask.endpoint == ApiEndpoint::kChat ? "chat completions" : "completions",
                                 target.stuff.ids ? "token ids" : "words", RateText(workload));
  if (settings.limits.concurrency > 0)
    text += fmt::format(", at most {} at the same time", settings.limits.concurrency);
  if (!settings.trace_file.empty()) text += ", lengths of " + settings.trace_file;
  return text + fmt::format(", seed {}\n", workload.seed);
}

std::string FailuresText(const LoadSummary& s) {
  std::string text;
  for (const auto& [kind, failure] : s.failures) {
    text += fmt::format("  {:<20}{:>8}   the first: {}\n", kind, failure.first, failure.second);
  }
  return text.empty() ? text : "failures\n" + text;
}

/// The share of values that are not above x, as a line through so many of its points.
Series Cumulative(std::string name, const std::vector<double>& sorted) {
  constexpr int kPoints = 400;
  constexpr double kLeastMs = 0.01;  // there is no zero on a logarithmic axis
  Series series{.name = std::move(name), .points = {}, .dots = false};
  for (int i = 0; i <= kPoints && !sorted.empty(); ++i) {
    const double share = static_cast<double>(i) / kPoints;
    series.points.emplace_back(std::max(kLeastMs, QuantileOfSorted(sorted, share)), 100 * share);
  }
  return series;
}

Plot OverTime(std::string title, std::string label, std::string name, const Timeline& timeline,
              const std::vector<double>& values) {
  Series series{.name = std::move(name), .points = {}, .dots = false};
  for (size_t i = 0; i < values.size(); ++i) {
    series.points.emplace_back((static_cast<double>(i) + 0.5) * timeline.step_s, values[i]);
  }
  return {.title = std::move(title),
          .x = {.label = "seconds since the first request"},
          .y = {.label = std::move(label)},
          .series = {std::move(series)},
          .bars = {}};
}

}  // namespace

std::string LoadText(const LoadSettings& settings, const LoadSummary& s) {
  std::string text =
      fmt::format("{}, model {}\n{}\n", settings.target.url.Text(), settings.target.ask.model, HowText(settings));
  text += fmt::format("served            {:>11} of {} requests in {:.2f} s; {} failed, {} hung up as planned\n",
                      s.served, s.requests, s.duration_s, s.failed, s.hung_up);
  text += fmt::format("requests/s        {:>11.3f}\n", s.requests_per_s);
  if (s.good_per_s) text += fmt::format("good requests/s   {:>11.3f}\n", *s.good_per_s);
  text += fmt::format("answer tokens/s   {:>11.2f}\n", s.answer_tokens_per_s);
  text += fmt::format("all tokens/s      {:>11.2f}\n", s.tokens_per_s);
  text += fmt::format("prompt tokens     {:>11}   {} of them from the server's cache, as it says\n", s.prompt_tokens,
                      s.cached_tokens);
  text += fmt::format("answer tokens     {:>11}\n", s.answer_tokens);
  text += fmt::format("running at most   {:>11}\n\n", s.peak_running);
  text += fmt::format("{:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}\n", "milliseconds", "mean", "median", "p90", "p95",
                      "p99", "max");
  text += LatencyRow("TTFT", s.ttft_ms) + LatencyRow("TPOT", s.tpot_ms) + LatencyRow("inter-token", s.itl_ms) +
          LatencyRow("end to end", s.e2e_ms);
  // Of requests that are all due at once it says nothing.
  const WorkloadSettings& workload = settings.workload;
  const bool timed = workload.rate ? std::isfinite(*workload.rate) : workload.trace != nullptr;
  if (timed) text += LatencyRow("late start", s.late_ms);
  if (s.failed > 0) text += "\n" + FailuresText(s);
  if (s.slow > 0) text += fmt::format("\n{} slow readers are not among the latencies.\n", s.slow);
  if (s.short_answers > 0) {
    text += fmt::format("\n{} answers have fewer tokens than were asked for: does the server know ignore_eos?\n",
                        s.short_answers);
  }
  if (s.counted_by_piece > 0) {
    text += fmt::format("\n{} answers came without usage: their chunks count as tokens.\n", s.counted_by_piece);
  }
  return text;
}

std::string CompareText(const LoadSettings& settings, std::string_view other, const Comparison& comparison) {
  std::string text = fmt::format("A: {}, model {}\nB: {}\n{} alternated pairs of {} requests; {}\n",
                                 settings.target.url.Text(), settings.target.ask.model, other, comparison.pairs.size(),
                                 comparison.pairs.front().first.requests, HowText(settings));
  text += fmt::format("{:<24}{:>12}{:>12}{:>10}   {}\n", "", "A (median)", "B (median)", "A / B", "95 % interval");
  for (const ComparedFigure& figure : comparison.figures) {
    text += fmt::format("{:<24}{:>12.3f}{:>12.3f}{:>10.3f}   {:.3f} – {:.3f}{}\n", figure.title, figure.first,
                        figure.second, figure.ratio.median, figure.ratio.low, figure.ratio.high,
                        figure.ratio.coverage >= 0.95
                            ? ""
                            : fmt::format(" (only {:.0f} %: too few pairs)", 100 * figure.ratio.coverage));
  }
  int64_t failed[2] = {0, 0};
  for (const auto& [a, b] : comparison.pairs) {
    failed[0] += a.failed;
    failed[1] += b.failed;
  }
  if (failed[0] + failed[1] > 0) text += fmt::format("\nfailed: {} of A, {} of B\n", failed[0], failed[1]);
  return text;
}

object SettingsJson(const LoadSettings& settings) {
  const LoadTarget& target = settings.target;
  const WorkloadSettings& workload = settings.workload;
  object json{{"url", target.url.Text()},
              {"endpoint", target.ask.endpoint == ApiEndpoint::kChat ? "chat" : "completions"},
              {"model", target.ask.model},
              {"prompts", target.stuff.ids ? "ids" : "text"},
              {"vocabulary", target.stuff.vocabulary},
              {"ignore_eos", target.ask.ignore_eos},
              {"temperature", target.ask.temperature},
              {"extra_body", target.ask.extra},
              {"seed", workload.seed},
              {"requests", workload.requests},
              {"shared_prefix", workload.shared_prefix},
              {"hang_ups", workload.hang_ups},
              {"slow_readers", workload.slow_readers},
              {"concurrency", settings.limits.concurrency},
              {"timeout_s", settings.limits.timeout_s},
              {"duration_s", OrNull(settings.limits.duration_s)},
              {"burstiness", workload.burstiness},
              {"warmup", settings.warmup}};
  // "inf" as it was given, since JSON has no such number; null: the trace's own times.
  const std::optional<double> rate = workload.rate;
  json["rate"] = rate && std::isinf(*rate) ? value("inf") : OrNull(rate);
  if (workload.trace != nullptr) {
    json["trace"] = settings.trace_file;
    json["trace_requests"] = workload.trace->size();
    json["time_scale"] = workload.time_scale;
  } else {
    json["prompt_tokens"] = workload.prompt_tokens;
    json["answer_tokens"] = workload.answer_tokens;
    json["range_ratio"] = workload.range_ratio;
  }
  json["goodput_ms"] = object{{"ttft", OrNull(settings.goodput.ttft)},
                              {"tpot", OrNull(settings.goodput.tpot)},
                              {"e2el", OrNull(settings.goodput.e2e)}};
  return json;
}

object SummaryJson(const LoadSummary& s) {
  object json{{"requests", s.requests},
              {"served", s.served},
              {"failed", s.failed},
              {"hung_up", s.hung_up},
              {"slow", s.slow},
              {"duration_s", s.duration_s},
              {"requests_per_s", s.requests_per_s},
              {"good_per_s", OrNull(s.good_per_s)},
              {"answer_tokens_per_s", s.answer_tokens_per_s},
              {"tokens_per_s", s.tokens_per_s},
              {"prompt_tokens", s.prompt_tokens},
              {"cached_tokens", s.cached_tokens},
              {"answer_tokens", s.answer_tokens},
              {"short_answers", s.short_answers},
              {"counted_by_piece", s.counted_by_piece},
              {"peak_running", s.peak_running}};
  for (const auto& [key, member] : kLatencies) json[key] = DistributionJson(s.*member);
  object failures;
  for (const auto& [kind, failure] : s.failures) {
    failures[kind] = object{{"count", failure.first}, {"first", failure.second}};
  }
  json["failures"] = std::move(failures);
  return json;
}

array RequestsJson(const std::vector<RequestOutcome>& outcomes) {
  array list;
  for (const RequestOutcome& outcome : outcomes) {
    object json{{"index", outcome.request.index},
                {"fate", FateName(outcome)},
                {"status", outcome.http_status},
                {"detail", outcome.detail},
                {"due_s", outcome.request.at_s},
                {"start_s", outcome.start_s},
                {"end_s", outcome.end_s},
                {"asked_prompt_tokens", outcome.request.prompt_tokens},
                {"asked_answer_tokens", outcome.request.answer_tokens},
                {"prompt_tokens", outcome.PromptTokens()},
                {"answer_tokens", outcome.AnswerTokens()},
                {"cached_tokens", std::max<int64_t>(0, outcome.answer.cached_tokens)},
                {"finish_reason", outcome.answer.finish_reason},
                {"slow", outcome.request.slow}};
    if (outcome.fate == Fate::kServed) {
      const Latencies latencies = LatenciesOf(outcome);
      json["ttft_ms"] = latencies.ttft;
      json["tpot_ms"] = OrNull(latencies.tpot);
      json["e2e_ms"] = latencies.e2e;
    }
    array pieces;
    for (const double at : outcome.answer.piece_s) pieces.emplace_back(1e3 * at);
    json["pieces_ms"] = std::move(pieces);
    list.push_back(std::move(json));
  }
  return list;
}

object ComparisonJson(const Comparison& comparison) {
  array pairs;
  for (const auto& [a, b] : comparison.pairs) pairs.push_back(object{{"a", SummaryJson(a)}, {"b", SummaryJson(b)}});
  object ratios;
  for (const ComparedFigure& figure : comparison.figures) {
    ratios[figure.key] = object{{"a", figure.first},
                                {"b", figure.second},
                                {"ratio", figure.ratio.median},
                                {"low", figure.ratio.low},
                                {"high", figure.ratio.high},
                                {"coverage", figure.ratio.coverage},
                                {"more_is_better", figure.more_is_better}};
  }
  return {{"pairs", std::move(pairs)}, {"ratios", std::move(ratios)}};
}

std::string LoadPlots(const LoadSettings& settings, const std::vector<RequestOutcome>& outcomes) {
  constexpr size_t kSteps = 120;
  const SortedLatencies all = SortLatencies(outcomes);
  const Timeline timeline = TimelineOf(outcomes, kSteps);
  Plot latencies{.title = "Latencies: " + settings.target.ask.model + " at " + settings.target.url.Text(),
                 .x = {.label = "milliseconds", .log = true},
                 .y = {.label = "percent that took no longer"},
                 .series = {},
                 .bars = {}};
  for (const auto& [name, values] : {std::pair<const char*, const std::vector<double>*>{"TTFT", &all.ttft},
                                     {"TPOT", &all.tpot},
                                     {"inter-token", &all.itl},
                                     {"end to end", &all.e2e}}) {
    if (!values->empty()) latencies.series.push_back(Cumulative(name, *values));
  }
  const Plot plots[] = {
      std::move(latencies), OverTime("Requests that run", "requests", "running", timeline, timeline.running),
      OverTime("Tokens of answers that were served", "tokens/s", "tokens/s", timeline, timeline.tokens_per_s)};
  return PlotsSvgFile(plots);
}

}  // namespace kvasir::apps
