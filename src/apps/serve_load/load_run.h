// Sends a load to a server.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "apps/serve_load/outcome.h"
#include "apps/serve_load/prompts.h"
#include "apps/serve_load/url.h"
#include "apps/serve_load/workload.h"
#include "base/status.h"

namespace kvasir::apps {

/// A server, and how it is asked.
struct LoadTarget {
  ServerUrl url;
  std::string api_key;
  AskSettings ask;
  PromptStuff stuff;
};

struct RunLimits {
  int64_t concurrency = 0;           // requests at the same time; 0: any number
  double timeout_s = 600;            // for one request
  std::optional<double> duration_s;  // no request begins later than that
};

/// How many requests are over, and how many run.
using OnProgress = std::function<void(int64_t over, int64_t running)>;

/// Sends every request of the workload when it is due, or as soon as one of `concurrency` others is over, and waits for
/// all of them. One thread; outcomes are in the order in which they ended. What the server does wrong is an outcome and
/// no error. IoError: no address for the server's name. Cancelled without a message: Ctrl-C (see CatchInterrupts).
Result<std::vector<RequestOutcome>> RunLoad(const LoadTarget& target, const Workload& workload, const RunLimits& limits,
                                            const OnProgress& on_progress);

}  // namespace kvasir::apps
