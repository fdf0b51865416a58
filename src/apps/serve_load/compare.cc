#include "apps/serve_load/compare.h"

namespace kvasir::apps {
namespace {

struct Figure {
  std::string_view key;
  std::string_view title;
  bool more_is_better;
  double (*of)(const LoadSummary&);
};

constexpr Figure kFigures[] = {
    {"requests_per_s", "requests/s", true, [](const LoadSummary& s) { return s.requests_per_s; }},
    {"answer_tokens_per_s", "answer tokens/s", true, [](const LoadSummary& s) { return s.answer_tokens_per_s; }},
    {"tokens_per_s", "all tokens/s", true, [](const LoadSummary& s) { return s.tokens_per_s; }},
    {"good_per_s", "good requests/s", true, [](const LoadSummary& s) { return s.good_per_s.value_or(0); }},
    {"ttft_ms_median", "TTFT ms, median", false, [](const LoadSummary& s) { return s.ttft_ms.p50; }},
    {"ttft_ms_p99", "TTFT ms, p99", false, [](const LoadSummary& s) { return s.ttft_ms.p99; }},
    {"tpot_ms_median", "TPOT ms, median", false, [](const LoadSummary& s) { return s.tpot_ms.p50; }},
    {"tpot_ms_p99", "TPOT ms, p99", false, [](const LoadSummary& s) { return s.tpot_ms.p99; }},
    {"itl_ms_median", "inter-token ms, median", false, [](const LoadSummary& s) { return s.itl_ms.p50; }},
    {"itl_ms_p99", "inter-token ms, p99", false, [](const LoadSummary& s) { return s.itl_ms.p99; }},
    {"e2e_ms_median", "end to end ms, median", false, [](const LoadSummary& s) { return s.e2e_ms.p50; }},
    {"e2e_ms_p99", "end to end ms, p99", false, [](const LoadSummary& s) { return s.e2e_ms.p99; }},
};

}  // namespace

std::vector<ComparedFigure> CompareFigures(const std::vector<std::pair<LoadSummary, LoadSummary>>& pairs) {
  std::vector<ComparedFigure> figures;
  for (const Figure& figure : kFigures) {
    std::vector<double> first;
    std::vector<double> second;
    std::vector<double> ratios;
    for (const auto& [a, b] : pairs) {
      first.push_back(figure.of(a));
      second.push_back(figure.of(b));
      if (first.back() > 0 && second.back() > 0) ratios.push_back(first.back() / second.back());
    }
    if (ratios.size() < pairs.size()) continue;
    figures.push_back({.key = figure.key,
                       .title = figure.title,
                       .more_is_better = figure.more_is_better,
                       .first = Median(std::move(first)),
                       .second = Median(std::move(second)),
                       .ratio = IntervalOfMedian(std::move(ratios))});
  }
  return figures;
}

Result<Comparison> CompareServers(int pairs, const RunOne& run) {
  Comparison comparison;
  for (int pair = 0; pair < pairs; ++pair) {
    LoadSummary summaries[2];
    for (const int turn : {0, 1}) {
      const int server = (pair + turn) % 2;
      ASSIGN_OR_RETURN(summaries[server], run(server, pair));
      if (summaries[server].served > 0) continue;
      const auto& failures = summaries[server].failures;
      return IoError("the {} server served nothing in pair {}{}", server == 0 ? "first" : "second", pair + 1,
                     failures.empty() ? "" : ": " + failures.begin()->first + ": " + failures.begin()->second.second);
    }
    comparison.pairs.emplace_back(std::move(summaries[0]), std::move(summaries[1]));
  }
  comparison.figures = CompareFigures(comparison.pairs);
  return comparison;
}

}  // namespace kvasir::apps
