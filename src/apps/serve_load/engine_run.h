// The same load without a server: requests straight to an engine in this process, to see what HTTP costs.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "apps/serve_load/load_run.h"
#include "engine/engine_thread.h"

namespace kvasir::apps {

/// An engine and its thread as `kvasir serve` has them by default. Not thread-safe.
class BareEngine {
 public:
  /// Runs so many sequences at once. Errors as of Engine::Load.
  static Result<std::unique_ptr<BareEngine>> Load(const std::filesystem::path& model, int64_t max_running);

  /// RunLoad's: greedy answers of the length asked for, from prompts of token ids.
  Result<std::vector<RequestOutcome>> Run(const PromptStuff& stuff, const Workload& workload, const RunLimits& limits);

 private:
  BareEngine() = default;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<EngineThread> thread_;
};

}  // namespace kvasir::apps
