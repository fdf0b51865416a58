// Many requests at once, step by step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/running_sample.h"
#include "engine/scheduler.h"
#include "engine/step_runner.h"

namespace kvasir {

/// What a loop needs of the engine.
struct BatchContext {
  StepRunner& runner;
  KvCache& cache;
  SampleContext samples;
  std::function<Status(const GenerationRequest&)> check;
};

using RequestId = int64_t;

struct BatchOutput {
  std::vector<GeneratedSample> samples;
  // Since the request was submitted.
  double first_token_ms = 0;  // 0: there was none
  double total_ms = 0;
};

struct BatchRequest {
  GenerationRequest generation;  // `keep`, beams and `interrupted` are not for many at once
  int32_t priority = 0;          // the larger ones come first
  TextCallback on_text;          // called by Step; returning false cancels the request
  /// Called once, by Step or Cancel, when the request has ended; an error if its logits were no numbers, or the cache
  /// cannot hold it.
  std::function<void(Result<BatchOutput>)> on_done;
};

/// What a step did, for metrics.
struct BatchStep {
  int64_t answers = 0;        // tokens run of texts that go on
  int64_t prompt_tokens = 0;  // and of those that begin
  double milliseconds = 0;
};

/// Schedule, run, postprocess: the engine's loop over requests that come and go at any step (continuous batching).
/// A request's answer has the same bits whoever runs beside it: prompts are computed exactly (never
/// ExecContext::round_weights), and no other result depends on passes or company.
///
/// Not thread-safe; callbacks must not call the loop. Requests that have not ended when it is destroyed hear nothing.
class BatchLoop {
 public:
  BatchLoop(BatchContext context, const SchedulerOptions& options);
  ~BatchLoop();
  BatchLoop(const BatchLoop&) = delete;
  BatchLoop& operator=(const BatchLoop&) = delete;

  /// Checks the request and lets it wait for the next step. Errors as of Engine::Generate; ResourceExhausted: too many
  /// wait.
  Result<RequestId> Submit(BatchRequest request);

  /// Ends a request with what there is of it; its blocks are free at once. Nothing happens to one that has ended.
  void Cancel(RequestId id);

  /// Runs a step. False: no request is left. An error is the engine's, and ends all requests.
  Result<bool> Step();

  SchedulerCounts counts() const { return scheduler_.counts(); }
  const BatchStep& last_step() const { return last_step_; }

 private:
  struct Active;
  struct LaneOf {
    Active* request;
    size_t sample;
  };

  void AddLane(LaneId lane, Active& request, size_t sample);
  void RemoveLane(LaneId lane);
  LaneSpec SpecOf(const Active& request, const RunningSample& sample) const;
  Status Choose(const ScheduledInput& input, std::span<const float> logits);
  Status BeginOthers(LaneId first, Active& request, std::span<const float> logits);
  void EndIfDone(Active& request);
  void Fail(Active& request, Status status);

  BatchContext context_;
  Scheduler scheduler_;
  bool round_weights_before_;
  RequestId next_id_ = 1;
  std::map<RequestId, std::unique_ptr<Active>> requests_;
  std::map<LaneId, LaneOf> lanes_;
  BatchStep last_step_;
};

}  // namespace kvasir
