// Many requests at once, step by step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/embedding.h"
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
  int64_t cached_tokens = 0;  // of the prompt, found in the tree of prefixes
  // Since the request was submitted.
  double first_step_ms = 0;   // until its first tokens were run; 0: none were
  double first_token_ms = 0;  // 0: there was none
  double total_ms = 0;
};

struct BatchRequest {
  GenerationRequest generation;  // `keep`, beams and `interrupted` are not for many at once
  int32_t priority = 0;          // the larger ones come first
  uint64_t client = 0;           // LaneSpec's
  TextCallback on_text;          // called by Step; returning false cancels the request
  /// Called once, by Step or Cancel, when the request has ended; an error if its logits were no numbers, or the cache
  /// cannot hold it.
  std::function<void(Result<BatchOutput>)> on_done;
};

/// A request's part in a step.
struct BatchPart {
  RequestId request = 0;
  bool answer = false;  // a token of a text that goes on, not of a prompt
  int64_t tokens = 0;
};

/// What a step did, for metrics.
struct BatchStep {
  std::vector<BatchPart> parts;
  int64_t answers = 0;        // tokens run of texts that go on
  int64_t prompt_tokens = 0;  // and of those that begin
  double milliseconds = 0;
  double wait_ms = 0;  // nothing was run: a batch waits so long for others, unless they come (V5)
};

/// Schedule, run, postprocess: the engine's loop over requests that come and go at any step (continuous batching).
/// A request's answer has the same bits whoever runs beside it: prompts are computed exactly, unless the options say
/// otherwise (SchedulerOptions::deterministic), and no other result depends on passes or company.
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

  /// A text to become a vector, between the steps of others. Errors: no tokens, ids or a length that cannot be, or too
  /// many wait.
  Result<RequestId> Submit(EmbeddingRequest request);

  /// Ends a request with what there is of it (a vector's without a word); its blocks are free at once. Nothing happens
  /// to one that has ended.
  void Cancel(RequestId id);

  /// Runs a step. False: no request is left. An error is the engine's, and ends all requests.
  Result<bool> Step();

  /// Texts that are to become vectors and have not begun wait as well.
  SchedulerCounts counts() const;
  /// Nothing runs or waits.
  bool empty() const { return requests_.empty() && embeddings_.empty(); }
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
  void NotePart(const ScheduledInput& input);
  Status BeginOthers(LaneId first, Active& request, std::span<const float> logits);
  void CancelUnborn(Active& request);
  void EndTooLong(std::span<const LaneId> lanes);
  void EndIfDone(Active& request);
  void Fail(Active& request, Status status);

  BatchContext context_;
  Scheduler scheduler_;
  bool round_weights_before_;
  RequestId next_id_ = 1;
  std::map<RequestId, std::unique_ptr<Active>> requests_;
  std::map<LaneId, LaneOf> lanes_;
  EmbeddingQueue embeddings_;
  int64_t step_tokens_;
  int64_t max_waiting_;
  BatchStep last_step_;
};

}  // namespace kvasir
