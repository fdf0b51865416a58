// The engine's loop on a thread of its own, for requests that come from others.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/batch_loop.h"
#include "engine/engine.h"
#include "engine/scheduler.h"

namespace kvasir {

/// Drives a BatchLoop: takes requests between two steps, runs steps while there are any, sleeps when there are none.
///
/// All methods but Stop may be called from any thread, never from a callback. Callbacks (on_text, on_done, on_step)
/// come from the engine's thread and keep everyone waiting while they run.
class EngineThread {
 public:
  /// What a step did, and what the loop looks like afterwards. The engine may be read, until the call returns.
  using StepCallback = std::function<void(const Engine& engine, const BatchStep& step, const SchedulerCounts& counts)>;

  /// The engine outlives the thread, and nobody else calls it meanwhile. Errors as of Engine::Batch.
  static Result<std::unique_ptr<EngineThread>> Start(Engine& engine, const SchedulerOptions& options,
                                                     StepCallback on_step = {});
  ~EngineThread();  // Stop
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  /// Errors as of Engine::CheckRequest; ResourceExhausted: as many wait as may, or the thread has stopped. Everything
  /// later comes to on_done, which is always called for a request that was taken.
  Result<RequestId> Submit(BatchRequest request);

  /// The same for a text that is to become a vector. One that is cancelled ends with Cancelled.
  Result<RequestId> Submit(EmbeddingRequest request);

  /// The request ends before the next step, with what there is of it.
  void Cancel(RequestId id);

  /// Requests that were taken and have not ended.
  int64_t active() const { return active_.load(std::memory_order_relaxed); }

  /// Ends all requests as cancelled and waits for the thread. Idempotent; from one thread.
  void Stop();

 private:
  struct Command {
    RequestId id = 0;
    bool cancel = false;
    BatchRequest request;
    std::optional<EmbeddingRequest> embedding;
  };

  EngineThread(Engine& engine, const SchedulerOptions& options, StepCallback on_step);
  void Run();
  /// What has come; waits for something, at most so many milliseconds (for ever: negative).
  std::vector<Command> TakeCommands(double wait_ms);
  bool CarryAll(std::vector<Command> commands);
  Result<RequestId> Enqueue(Command command);
  void Carry(Command& command);
  void CarryCancel(RequestId id);
  void CarryRequest(Command& command);
  void CarryEmbedding(Command& command);

  Engine& engine_;
  SchedulerOptions options_;
  StepCallback on_step_;
  std::unique_ptr<BatchLoop> loop_;
  // Of the engine's thread: by our id, the loop's.
  std::unordered_map<RequestId, RequestId> in_loop_;
  std::unordered_map<RequestId, std::function<void(Result<std::vector<float>>)>> embeddings_;  // of those, what to call
  std::atomic<int64_t> active_ = 0;
  std::atomic<RequestId> next_id_ = 1;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Command> inbox_;
  int64_t not_carried_ = 0;  // of what has come, but for cancellations: the loop does not count it yet
  int64_t waiting_ = 0;      // in the loop
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace kvasir
