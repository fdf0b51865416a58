#include "apps/serve_load/summary.h"

#include <algorithm>
#include <cmath>

#include "apps/flags.h"
#include "apps/statistics.h"

namespace kvasir::apps {
namespace {

/// Served to a client whose latencies say something of the server.
bool Counts(const RequestOutcome& outcome) { return outcome.fate == Fate::kServed && !outcome.request.slow; }

int64_t PeakRunning(const std::vector<RequestOutcome>& outcomes) {
  std::vector<std::pair<double, int>> events;
  events.reserve(2 * outcomes.size());
  for (const RequestOutcome& outcome : outcomes) {
    events.emplace_back(outcome.start_s, 1);
    events.emplace_back(outcome.end_s, -1);
  }
  std::ranges::sort(events);  // at the same time ends come first
  int64_t running = 0;
  int64_t peak = 0;
  for (const auto& [at, change] : events) peak = std::max(peak, running += change);
  return peak;
}

std::pair<double, double> Span(const std::vector<RequestOutcome>& outcomes) {
  if (outcomes.empty()) return {0, 0};
  double first = INFINITY;
  double last = 0;
  for (const RequestOutcome& outcome : outcomes) {
    first = std::min(first, outcome.start_s);
    last = std::max(last, outcome.end_s);
  }
  return {first, last};
}

}  // namespace

std::string FateName(const RequestOutcome& outcome) {
  switch (outcome.fate) {
    case Fate::kServed: return "served";
    case Fate::kHungUp: return "hung up";
    case Fate::kConnection: return "connection";
    case Fate::kTimeout: return "timeout";
    case Fate::kStatus: return fmt::format("status {}", outcome.http_status);
    case Fate::kError: return "error in the stream";
    case Fate::kBroken: return "broken stream";
    case Fate::kEmpty: return "no token";
  }
  return "";
}

Distribution DistributionOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  Distribution d{.count = static_cast<int64_t>(values.size()), .mean = MeanOf(values)};
  double squares = 0;
  for (const double value : values) squares += (value - d.mean) * (value - d.mean);
  if (d.count > 1) d.sd = std::sqrt(squares / static_cast<double>(d.count - 1));
  d.p50 = QuantileOfSorted(values, 0.5);
  d.p90 = QuantileOfSorted(values, 0.9);
  d.p95 = QuantileOfSorted(values, 0.95);
  d.p99 = QuantileOfSorted(values, 0.99);
  d.max = values.back();
  return d;
}

Latencies LatenciesOf(const RequestOutcome& outcome) {
  const std::vector<double>& pieces = outcome.answer.piece_s;
  Latencies latencies{.ttft = 1e3 * pieces.front(), .tpot = {}, .e2e = 1e3 * outcome.answer.end_s};
  const int64_t tokens = outcome.AnswerTokens();
  if (tokens > 1) latencies.tpot = 1e3 * (pieces.back() - pieces.front()) / static_cast<double>(tokens - 1);
  return latencies;
}

bool GoodputLimits::Meets(const Latencies& latencies) const {
  return latencies.ttft <= ttft.value_or(INFINITY) && latencies.tpot.value_or(0) <= tpot.value_or(INFINITY) &&
         latencies.e2e <= e2e.value_or(INFINITY);
}

Result<GoodputLimits> ParseGoodput(std::string_view text) {
  GoodputLimits limits;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find(','), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const size_t colon = std::min(part.find(':'), part.size());
    const std::string_view name = part.substr(0, colon);
    std::optional<double>* limit = name == "ttft"                    ? &limits.ttft
                                   : name == "tpot"                  ? &limits.tpot
                                   : name == "e2e" || name == "e2el" ? &limits.e2e
                                                                     : nullptr;
    const auto value = internal::ParseNumber(part.substr(std::min(colon + 1, part.size())), {.min = 0, .max = 1e12});
    if (limit == nullptr || *limit || !value.ok()) {
      return InvalidArgument("\"{}\" is none of ttft:MS, tpot:MS and e2el:MS, each once, with milliseconds", part);
    }
    *limit = *value;
  }
  if (limits.empty()) return InvalidArgument("no limit; give some of ttft:MS,tpot:MS,e2el:MS");
  return limits;
}

SortedLatencies SortLatencies(const std::vector<RequestOutcome>& outcomes) {
  SortedLatencies all;
  for (const RequestOutcome& outcome : outcomes) {
    if (!Counts(outcome)) continue;
    const Latencies latencies = LatenciesOf(outcome);
    all.ttft.push_back(latencies.ttft);
    if (latencies.tpot) all.tpot.push_back(*latencies.tpot);
    all.e2e.push_back(latencies.e2e);
    const std::vector<double>& pieces = outcome.answer.piece_s;
    for (size_t i = 1; i < pieces.size(); ++i) all.itl.push_back(1e3 * (pieces[i] - pieces[i - 1]));
  }
  for (auto* values : {&all.ttft, &all.tpot, &all.itl, &all.e2e}) std::ranges::sort(*values);
  return all;
}

LoadSummary Summarize(const std::vector<RequestOutcome>& outcomes, const GoodputLimits& goodput) {
  LoadSummary s{.requests = static_cast<int64_t>(outcomes.size())};
  std::vector<double> late;
  int64_t good = 0;
  for (const RequestOutcome& outcome : outcomes) {
    late.push_back(1e3 * std::max(0.0, outcome.start_s - outcome.request.at_s));
    if (outcome.fate == Fate::kHungUp) ++s.hung_up;
    if (outcome.Failed()) {
      ++s.failed;
      auto& [count, first] = s.failures[FateName(outcome)];
      if (++count == 1) first = outcome.detail;
    }
    if (outcome.fate != Fate::kServed) continue;
    ++s.served;
    if (outcome.request.slow) ++s.slow;
    s.prompt_tokens += outcome.PromptTokens();
    s.cached_tokens += std::max<int64_t>(0, outcome.answer.cached_tokens);
    s.answer_tokens += outcome.AnswerTokens();
    if (outcome.AnswerTokens() < outcome.request.answer_tokens) ++s.short_answers;
    if (outcome.answer.answer_tokens < 0) ++s.counted_by_piece;
    if (goodput.Meets(LatenciesOf(outcome))) ++good;
  }
  const auto [first, last] = Span(outcomes);
  s.duration_s = last - first;
  s.peak_running = PeakRunning(outcomes);
  const auto per_second = [&](int64_t count) {
    return s.duration_s > 0 ? static_cast<double>(count) / s.duration_s : 0;
  };
  s.requests_per_s = per_second(s.served);
  s.answer_tokens_per_s = per_second(s.answer_tokens);
  s.tokens_per_s = per_second(s.prompt_tokens + s.answer_tokens);
  if (!goodput.empty()) s.good_per_s = per_second(good);
  SortedLatencies all = SortLatencies(outcomes);
  s.ttft_ms = DistributionOf(std::move(all.ttft));
  s.tpot_ms = DistributionOf(std::move(all.tpot));
  s.itl_ms = DistributionOf(std::move(all.itl));
  s.e2e_ms = DistributionOf(std::move(all.e2e));
  s.late_ms = DistributionOf(std::move(late));
  return s;
}

Timeline TimelineOf(const std::vector<RequestOutcome>& outcomes, size_t steps) {
  const auto [first, last] = Span(outcomes);
  const double begin = first;
  const double step = std::max(last - first, 1e-9) / static_cast<double>(steps);
  Timeline timeline{.step_s = step, .running = {}, .tokens_per_s = {}};
  timeline.running.resize(steps);
  timeline.tokens_per_s.resize(steps);
  const auto index = [&](double at) {
    return std::min(steps - 1, static_cast<size_t>(std::max(0.0, (at - begin) / step)));
  };
  for (const RequestOutcome& outcome : outcomes) {
    for (size_t i = index(outcome.start_s); i <= index(outcome.end_s); ++i) {
      const double from = begin + static_cast<double>(i) * step;
      const double overlap = std::min(outcome.end_s, from + step) - std::max(outcome.start_s, from);
      timeline.running[i] += std::max(0.0, overlap) / step;
    }
    if (outcome.fate != Fate::kServed) continue;
    // Pieces of several tokens count as so many.
    const double tokens =
        static_cast<double>(outcome.AnswerTokens()) / static_cast<double>(outcome.answer.piece_s.size());
    for (const double at : outcome.answer.piece_s) {
      timeline.tokens_per_s[index(outcome.start_s + at)] += tokens / step;
    }
  }
  return timeline;
}

}  // namespace kvasir::apps
