// Which requests a load is made of.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "apps/serve_load/arrivals.h"
#include "apps/serve_load/outcome.h"
#include "apps/trace.h"

namespace kvasir::apps {

struct WorkloadSettings {
  uint64_t seed = 0;
  int64_t requests = 0;         // 0: as many as the trace has, or without an end
  int64_t prompt_tokens = 256;  // of the mean synthetic prompt, without the shared prefix
  int64_t answer_tokens = 128;
  double range_ratio = 0;                            // lengths are uniform in mean * (1 ± ratio), at least 1
  int64_t shared_prefix = 0;                         // tokens that every prompt begins with, on top of its own
  const std::vector<TraceRequest>* trace = nullptr;  // lengths, and times where there is no rate; outlives the workload
  double time_scale = 1;                             // the trace's times are so many times as long
  std::optional<double> rate;                        // requests per second; nothing: the trace's times, or all at once
  double burstiness = 1;
  double hang_ups = 0;      // share of requests whose clients hang up
  double slow_readers = 0;  // share of requests whose clients read slowly
};

/// Gives out a load's requests one by one, each with what it asks for and when it is due. What a request is depends on
/// the seed and its index alone. Thread-compatible.
class Workload {
 public:
  explicit Workload(const WorkloadSettings& settings);

  /// Nothing when there are no more.
  std::optional<LoadRequest> Next();

 private:
  WorkloadSettings settings_;
  Arrivals arrivals_;
  int64_t next_ = 0;
};

}  // namespace kvasir::apps
