#include "server/generation_stream.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <mutex>
#include <optional>
#include <utility>

namespace kvasir::server {

/// What both threads know; outlives the stream where the engine still has a request.
struct GenerationStream::Shared : std::enable_shared_from_this<Shared> {
  Shared(const asio::any_io_executor& on, size_t requests) : executor(on), timer(std::in_place, on), left(requests) {
    for (size_t i = 0; i < requests; ++i) outputs.emplace_back(Internal("the request has not ended"));
  }

  const asio::any_io_executor executor;
  // Touched by the server's thread alone and gone with the stream: the engine may hold the rest for longer than there
  // is a server.
  std::optional<asio::steady_timer> timer;

  std::mutex mutex;  // of all below
  std::vector<StreamEvent> events;
  std::vector<Result<BatchOutput>> outputs;
  size_t left;             // requests that have not ended
  bool told = false;       // the server's thread will look
  bool abandoned = false;  // it never will

  /// Wakes the server's thread, once for all that comes before it looks. REQUIRES: the mutex is held.
  void Tell() {
    if (told || abandoned) return;
    told = true;
    asio::post(executor, [self = shared_from_this()] {
      if (self->timer) self->timer->cancel();
    });
  }
};

GenerationStream::GenerationStream(EngineThread& engine, const asio::any_io_executor& executor, size_t requests)
    : engine_(engine), shared_(std::make_shared<Shared>(executor, requests)) {}

Result<std::unique_ptr<GenerationStream>> GenerationStream::Start(EngineThread& engine,
                                                                  const asio::any_io_executor& executor,
                                                                  std::vector<BatchRequest> requests) {
  std::unique_ptr<GenerationStream> stream(new GenerationStream(engine, executor, requests.size()));
  for (size_t i = 0; i < requests.size(); ++i) {
    BatchRequest& request = requests[i];
    const int32_t first = static_cast<int32_t>(i) * requests.front().generation.n;
    request.on_text = [shared = stream->shared_, first](const TextEvent& event) {
      const std::lock_guard lock(shared->mutex);
      if (shared->abandoned) return false;
      shared->events.push_back({.choice = first + event.index,
                                .text = std::string(event.text),
                                .token = event.token,
                                .logprob = event.logprob,
                                .top_logprobs = {event.top_logprobs.begin(), event.top_logprobs.end()},
                                .finish = event.finish});
      shared->Tell();
      return true;
    };
    request.on_done = [shared = stream->shared_, i](Result<BatchOutput> output) {
      const std::lock_guard lock(shared->mutex);
      shared->outputs[i] = std::move(output);
      --shared->left;
      shared->Tell();
    };
    // On an error the stream goes, and with it the requests before this one.
    ASSIGN_OR_RETURN(const RequestId id, engine.Submit(std::move(request)));
    stream->ids_.push_back(id);
  }
  return stream;
}

GenerationStream::~GenerationStream() {
  shared_->timer.reset();
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->abandoned = true;
    if (shared_->left == 0) return;
  }
  for (const RequestId id : ids_) engine_.Cancel(id);
}

asio::awaitable<std::vector<StreamEvent>> GenerationStream::Next(std::chrono::milliseconds most) {
  bool wait = false;
  {
    const std::lock_guard lock(shared_->mutex);
    wait = shared_->events.empty() && shared_->left > 0;
    // From now on whoever tells posts a cancellation to this thread, which comes to it when the wait has begun.
    shared_->told = false;
    if (wait) shared_->timer->expires_after(most);
  }
  if (wait) co_await shared_->timer->async_wait(asio::as_tuple(asio::use_awaitable));
  const std::lock_guard lock(shared_->mutex);
  co_return std::exchange(shared_->events, {});
}

bool GenerationStream::ended() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->left == 0 && shared_->events.empty();
}

const std::vector<Result<BatchOutput>>& GenerationStream::outputs() const { return shared_->outputs; }

}  // namespace kvasir::server
