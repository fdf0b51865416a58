#include "apps/serve_load/engine_run.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "apps/terminal.h"

namespace kvasir::apps {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsBetween(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// The requests that run, and what became of the others.
struct Progressing {
  std::mutex mutex;
  std::condition_variable changed;
  int64_t running = 0;
  std::vector<RequestOutcome> outcomes;
};

BatchRequest ToBatchRequest(const PromptStuff& stuff, const LoadRequest& request) {
  BatchRequest batch;
  batch.generation.prompt = PromptIds(stuff, request);
  batch.generation.max_new_tokens = static_cast<int32_t>(request.answer_tokens);
  batch.generation.sampling.ignore_eos = true;
  return batch;
}

}  // namespace

Result<std::unique_ptr<BareEngine>> BareEngine::Load(const std::filesystem::path& model, int64_t max_running) {
  std::unique_ptr<BareEngine> bare(new BareEngine());
  EngineOptions options;
  options.model = model;
  options.cache.mode = CacheMode::kPaged;
  options.max_sequences = max_running + 1;
  ASSIGN_OR_RETURN(bare->engine_, Engine::Load(options));
  const SchedulerOptions scheduler{.max_running = max_running, .slowest_answers = 2};
  ASSIGN_OR_RETURN(bare->thread_, EngineThread::Start(*bare->engine_, scheduler));
  return bare;
}

Result<std::vector<RequestOutcome>> BareEngine::Run(const PromptStuff& stuff, const Workload& workload,
                                                    const RunLimits& limits) {
  Workload left = workload;
  const auto progress = std::make_shared<Progressing>();
  const Clock::time_point begin = Clock::now();
  while (const std::optional<LoadRequest> request = left.Next()) {
    const auto due = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(request->at_s));
    {
      std::unique_lock lock(progress->mutex);
      const auto may_begin = [&] { return limits.concurrency == 0 || progress->running < limits.concurrency; };
      progress->changed.wait(lock, may_begin);
      // Nothing else is waited for: whoever ends meanwhile makes no difference.
      progress->changed.wait_until(lock, due, [&] { return Interrupted(); });
      if (Interrupted()) return Status(StatusCode::kCancelled, "");
      if (limits.duration_s && SecondsBetween(begin, Clock::now()) > *limits.duration_s) break;
      ++progress->running;
    }
    const Clock::time_point start = Clock::now();
    const auto outcome =
        std::make_shared<RequestOutcome>(RequestOutcome{.request = *request, .start_s = SecondsBetween(begin, start)});
    BatchRequest batch = ToBatchRequest(stuff, *request);
    batch.on_text = [outcome, start](const TextEvent& event) {
      if (event.token) outcome->answer.piece_s.push_back(SecondsBetween(start, Clock::now()));
      return true;
    };
    batch.on_done = [outcome, progress, begin, start](const Result<BatchOutput>& output) {
      const Clock::time_point now = Clock::now();
      outcome->end_s = SecondsBetween(begin, now);
      outcome->answer.end_s = SecondsBetween(start, now);
      if (output.ok()) {
        outcome->http_status = 200;
        outcome->answer.prompt_tokens = outcome->request.prompt_tokens;
        outcome->answer.answer_tokens = static_cast<int64_t>(output->samples.front().token_ids.size());
        outcome->answer.cached_tokens = output->cached_tokens;
        outcome->answer.finish_reason = FinishReasonName(output->samples.front().finish);
      } else {
        outcome->fate = Fate::kError;
        outcome->detail = output.status().message();
      }
      const std::lock_guard lock(progress->mutex);
      progress->outcomes.push_back(*outcome);
      --progress->running;
      progress->changed.notify_all();
    };
    RETURN_IF_ERROR(thread_->Submit(std::move(batch)).status());
  }
  std::unique_lock lock(progress->mutex);
  progress->changed.wait(lock, [&] { return progress->running == 0; });
  return progress->outcomes;
}

}  // namespace kvasir::apps
