// Requests to the engine as the server's thread sees them: events that can be awaited.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine_thread.h"
#include "server/http.h"

namespace kvasir::server {

/// A TextEvent that lives by itself.
struct StreamEvent {
  int32_t choice = 0;  // the sample's number among those of all requests
  std::string text;
  std::optional<TokenId> token;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top_logprobs;
  FinishReason finish = FinishReason::kNone;
};

/// The requests behind one answer. All methods are for the server's thread (that of the executor). Who lets go of it
/// cancels what has not ended.
class GenerationStream {
 public:
  /// Choice i · n + s is sample s of request i, n that of the first request. Errors as of EngineThread::Submit; none of
  /// the requests is run then. The engine's thread outlives the stream.
  static Result<std::unique_ptr<GenerationStream>> Start(EngineThread& engine, const asio::any_io_executor& executor,
                                                         std::vector<BatchRequest> requests);
  ~GenerationStream();
  GenerationStream(const GenerationStream&) = delete;
  GenerationStream& operator=(const GenerationStream&) = delete;

  /// Events that came since the last call; waits for some, or the end, or until the time is over.
  asio::awaitable<std::vector<StreamEvent>> Next(std::chrono::milliseconds most);

  /// Whether all requests have ended and all their events have been taken.
  bool ended() const;
  /// How they ended, one for each request. REQUIRES: ended().
  const std::vector<Result<BatchOutput>>& outputs() const;

 private:
  struct Shared;
  GenerationStream(EngineThread& engine, const asio::any_io_executor& executor, size_t requests);

  EngineThread& engine_;
  std::shared_ptr<Shared> shared_;
  std::vector<RequestId> ids_;
};

}  // namespace kvasir::server
