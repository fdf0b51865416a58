#include "engine/engine_thread.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"

namespace kvasir {

Result<std::unique_ptr<EngineThread>> EngineThread::Start(Engine& engine, const SchedulerOptions& options,
                                                          StepCallback on_step) {
  std::unique_ptr<EngineThread> thread(new EngineThread(engine, options, std::move(on_step)));
  ASSIGN_OR_RETURN(thread->loop_, engine.Batch(options));
  thread->thread_ = std::thread([raw = thread.get()] { raw->Run(); });
  return thread;
}

EngineThread::EngineThread(Engine& engine, const SchedulerOptions& options, StepCallback on_step)
    : engine_(engine), options_(options), on_step_(std::move(on_step)) {}

EngineThread::~EngineThread() { Stop(); }

Result<RequestId> EngineThread::Submit(BatchRequest request) {
  RETURN_IF_ERROR(engine_.CheckRequest(request.generation));
  return Enqueue({.request = std::move(request)});
}

Result<RequestId> EngineThread::Submit(EmbeddingRequest request) {
  GenerationRequest same;
  same.prompt = request.tokens;
  RETURN_IF_ERROR(engine_.CheckRequest(same));
  return Enqueue({.embedding = std::move(request)});
}

Result<RequestId> EngineThread::Enqueue(Command command) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return ResourceExhausted("the engine is shutting down");
  const int64_t waiting = waiting_ + not_carried_;
  if (waiting >= options_.max_waiting) {
    return ResourceExhausted("{} requests wait already, which is the most allowed; try again later", waiting);
  }
  const RequestId id = next_id_.fetch_add(1, std::memory_order_relaxed);
  command.id = id;
  inbox_.push_back(std::move(command));
  ++not_carried_;
  active_.fetch_add(1, std::memory_order_relaxed);
  wake_.notify_one();
  return id;
}

void EngineThread::Cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  inbox_.push_back({.id = id, .cancel = true});
  wake_.notify_one();
}

void EngineThread::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

std::vector<EngineThread::Command> EngineThread::TakeCommands(double wait_ms) {
  const auto come = [this] { return stopping_ || !inbox_.empty(); };
  std::unique_lock lock(mutex_);
  if (wait_ms < 0) {
    wake_.wait(lock, come);
  } else if (wait_ms > 0) {
    wake_.wait_for(lock, std::chrono::duration<double, std::milli>(wait_ms), come);
  }
  return std::exchange(inbox_, {});
}

/// Has the loop take what has come. Returns whether the thread is to go on.
bool EngineThread::CarryAll(std::vector<Command> commands) {
  for (Command& command : commands) Carry(command);
  const int64_t waiting = loop_->counts().waiting;
  const std::lock_guard lock(mutex_);
  // What was taken out of the inbox counted until now, so that never more are taken than may wait.
  not_carried_ -= std::ranges::count(commands, false, &Command::cancel);
  waiting_ = waiting;
  return !stopping_;
}

void EngineThread::Carry(Command& command) {
  if (command.cancel) {
    CarryCancel(command.id);
  } else if (command.embedding) {
    CarryEmbedding(command);
  } else {
    CarryRequest(command);
  }
}

void EngineThread::CarryCancel(RequestId id) {
  const auto found = in_loop_.find(id);
  if (found == in_loop_.end()) return;
  loop_->Cancel(found->second);
  // The loop does not speak of texts that were to become vectors.
  const auto embedding = embeddings_.find(id);
  if (embedding == embeddings_.end()) return;
  const auto on_done = std::move(embedding->second);
  embeddings_.erase(embedding);
  in_loop_.erase(id);
  active_.fetch_sub(1, std::memory_order_relaxed);
  if (on_done) on_done(Status(StatusCode::kCancelled, "cancelled"));
}

void EngineThread::CarryRequest(Command& command) {
  const auto done = [this, id = command.id, on_done = command.request.on_done](Result<BatchOutput> output) {
    in_loop_.erase(id);
    active_.fetch_sub(1, std::memory_order_relaxed);
    if (on_done) on_done(std::move(output));
  };
  command.request.on_done = done;
  const auto submitted = loop_->Submit(std::move(command.request));
  if (submitted.ok()) {
    in_loop_[command.id] = *submitted;
  } else {
    done(submitted.status());
  }
}

void EngineThread::CarryEmbedding(Command& command) {
  embeddings_[command.id] = std::move(command.embedding->on_done);
  const auto done = [this, id = command.id](Result<std::vector<float>> vector) {
    const auto on_done = std::move(embeddings_.extract(id).mapped());
    in_loop_.erase(id);
    active_.fetch_sub(1, std::memory_order_relaxed);
    if (on_done) on_done(std::move(vector));
  };
  command.embedding->on_done = done;
  const auto submitted = loop_->Submit(*std::move(command.embedding));
  if (submitted.ok()) {
    in_loop_[command.id] = *submitted;
  } else {
    done(submitted.status());
  }
}

void EngineThread::Run() {
  double wait_ms = -1;
  while (CarryAll(TakeCommands(wait_ms))) {
    const auto stepped = loop_->Step();
    // Whoever it was has heard of it; those that come may have more luck.
    if (!stepped.ok()) LogError("a step failed: {}", stepped.status().message());
    wait_ms = loop_->empty() ? -1 : loop_->last_step().wait_ms;
    const SchedulerCounts counts = loop_->counts();
    {
      const std::lock_guard lock(mutex_);
      waiting_ = counts.waiting;
    }
    if (on_step_) on_step_(engine_, loop_->last_step(), counts);
  }
  CarryAll(TakeCommands(0));
  while (!in_loop_.empty()) CarryCancel(in_loop_.begin()->first);
  loop_.reset();
}

}  // namespace kvasir
