// Two servers under the same load, in alternation.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/serve_load/summary.h"
#include "apps/statistics.h"
#include "base/status.h"

namespace kvasir::apps {

/// One figure of all pairs of runs.
struct ComparedFigure {
  std::string_view key;    // in JSON: "ttft_ms_median"
  std::string_view title;  // "TTFT ms, median"
  bool more_is_better = false;
  double first = 0;      // the median of the first server's
  double second = 0;     // of the second server's
  MedianInterval ratio;  // first / second of each pair
};

struct Comparison {
  std::vector<std::pair<LoadSummary, LoadSummary>> pairs;
  std::vector<ComparedFigure> figures;  // those that every run has
};

/// Runs one server (0 or 1) under the load of this pair.
using RunOne = std::function<Result<LoadSummary>(int server, int pair)>;

/// Runs pairs in the order A B, B A, A B, …, because the speed of a shared machine drifts. REQUIRES: pairs > 0. Errors
/// are those of `run`, and IoError where a run served nothing.
Result<Comparison> CompareServers(int pairs, const RunOne& run);

/// Medians and the ratios' intervals (see IntervalOfMedian) of these pairs. REQUIRES: there is one.
std::vector<ComparedFigure> CompareFigures(const std::vector<std::pair<LoadSummary, LoadSummary>>& pairs);

}  // namespace kvasir::apps
