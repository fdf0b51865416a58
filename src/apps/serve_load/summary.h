// What a load measured, in figures.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/serve_load/outcome.h"
#include "base/status.h"

namespace kvasir::apps {

struct Distribution {
  int64_t count = 0;  // 0: the rest says nothing
  double mean = 0;
  double sd = 0;  // of a sample
  double p50 = 0;
  double p90 = 0;
  double p95 = 0;
  double p99 = 0;
  double max = 0;
};
Distribution DistributionOf(std::vector<double> values);

/// The latencies of one served request, in milliseconds.
struct Latencies {
  double ttft = 0;             // from its start to the first piece of text
  std::optional<double> tpot;  // per token behind the first; nothing: there was one only
  double e2e = 0;              // from its start to the end of its stream
};
/// REQUIRES: the request was served.
Latencies LatenciesOf(const RequestOutcome& outcome);

/// The most that a good request takes, in milliseconds each; infinite where nothing was said.
struct GoodputLimits {
  std::optional<double> ttft;
  std::optional<double> tpot;
  std::optional<double> e2e;

  bool empty() const { return !ttft && !tpot && !e2e; }
  bool Meets(const Latencies& latencies) const;
};
/// Parses "ttft:500,tpot:50,e2el:10000" (e2e is the same as e2el).
Result<GoodputLimits> ParseGoodput(std::string_view text);

struct LoadSummary {
  int64_t requests = 0;
  int64_t served = 0;
  int64_t failed = 0;
  int64_t hung_up = 0;
  int64_t slow = 0;  // served to slow readers, whose latencies are their own fault and not counted
  std::map<std::string, std::pair<int64_t, std::string>> failures;  // by kind: how many, and what the first one said
  double duration_s = 0;                                            // from the first start to the last end
  int64_t prompt_tokens = 0;                                        // of served requests, as all below
  int64_t cached_tokens = 0;
  int64_t answer_tokens = 0;
  int64_t short_answers = 0;     // with fewer tokens than asked for
  int64_t counted_by_piece = 0;  // answers whose tokens the server did not count
  int64_t peak_running = 0;      // most requests at the same time
  double requests_per_s = 0;
  double answer_tokens_per_s = 0;
  double tokens_per_s = 0;  // of prompts and answers
  std::optional<double> good_per_s;
  Distribution ttft_ms;
  Distribution tpot_ms;
  Distribution itl_ms;  // between two pieces
  Distribution e2e_ms;
  Distribution late_ms;  // from the time when a request was due to its start, of all requests
};
LoadSummary Summarize(const std::vector<RequestOutcome>& outcomes, const GoodputLimits& goodput);

/// All of one kind of latency, in milliseconds, in ascending order.
struct SortedLatencies {
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> itl;
  std::vector<double> e2e;
};
SortedLatencies SortLatencies(const std::vector<RequestOutcome>& outcomes);

/// How a load went over time.
struct Timeline {
  double step_s = 0;
  std::vector<double> running;       // requests, the mean of each step
  std::vector<double> tokens_per_s;  // of answers that were served
};
/// In so many steps from the first start to the last end. REQUIRES: steps > 0.
Timeline TimelineOf(const std::vector<RequestOutcome>& outcomes, size_t steps);

}  // namespace kvasir::apps
