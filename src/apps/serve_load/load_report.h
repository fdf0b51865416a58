// The forms of what `kvasir bench serve` measured.
#pragma once

#include <boost/json/object.hpp>

#include <string>
#include <vector>

#include "apps/serve_load/compare.h"
#include "apps/serve_load/load_run.h"
#include "apps/serve_load/summary.h"

namespace kvasir::apps {

/// How a load was made.
struct LoadSettings {
  LoadTarget target;
  WorkloadSettings workload;
  RunLimits limits;
  GoodputLimits goodput;
  int64_t warmup = 0;
  std::string trace_file;  // "" for none
};

/// A table for people.
std::string LoadText(const LoadSettings& settings, const LoadSummary& summary);
std::string CompareText(const LoadSettings& settings, std::string_view other, const Comparison& comparison);

/// All settings but the API key.
boost::json::object SettingsJson(const LoadSettings& settings);
/// All figures; latencies in milliseconds.
boost::json::object SummaryJson(const LoadSummary& summary);
/// One object for each request with its times.
boost::json::array RequestsJson(const std::vector<RequestOutcome>& outcomes);
boost::json::object ComparisonJson(const Comparison& comparison);

/// An SVG file: how latencies are distributed, and how the load went over time.
std::string LoadPlots(const LoadSettings& settings, const std::vector<RequestOutcome>& outcomes);

}  // namespace kvasir::apps
