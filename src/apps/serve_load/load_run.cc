#include "apps/serve_load/load_run.h"

#include <sys/resource.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <exception>

#include "apps/serve_load/http_client.h"
#include "apps/terminal.h"

namespace kvasir::apps {
namespace asio = boost::asio;

namespace {

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr auto kTick = std::chrono::milliseconds(100);
constexpr size_t kMaxErrorBody = 4096;

double Seconds(HttpClock::duration duration) { return std::chrono::duration<double>(duration).count(); }

HttpClock::duration Duration(double seconds) {
  return std::chrono::duration_cast<HttpClock::duration>(std::chrono::duration<double>(seconds));
}

/// Every connection is an open file.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // what a refusal costs is told by the connections that fail
}

/// One reply, as it is read.
struct Reply {
  explicit Reply(ApiEndpoint endpoint) : reader(endpoint) {}
  AnswerReader reader;
  int status = 0;
  bool events = false;  // by its Content-Type
  std::string error_body;
};

/// What a finished exchange means.
void Judge(const HttpResult& result, Reply& reply, RequestOutcome& outcome) {
  outcome.http_status = reply.status;
  outcome.answer = std::move(reply.reader.answer());
  const auto fail = [&](Fate fate, std::string detail) {
    outcome.fate = fate;
    outcome.detail = std::move(detail);
  };
  switch (result.end) {
    case HttpEnd::kConnection: return fail(Fate::kConnection, result.status.message());
    case HttpEnd::kTimeout: return fail(Fate::kTimeout, result.status.message());
    case HttpEnd::kBroken: return fail(Fate::kBroken, result.status.message());
    case HttpEnd::kStopped:
      if (result.status.code() == StatusCode::kCancelled) return fail(Fate::kHungUp, "");
      return fail(result.status.code() == StatusCode::kInternal ? Fate::kError : Fate::kBroken,
                  result.status.message());
    case HttpEnd::kDone: break;
  }
  if (reply.status != 200) return fail(Fate::kStatus, ServerMessage(reply.error_body));
  if (!reply.events) return fail(Fate::kBroken, "the reply is no text/event-stream");
  if (const Status end = reply.reader.End(); !end.ok()) return fail(Fate::kBroken, end.message());
  if (outcome.answer.piece_s.empty()) return fail(Fate::kEmpty, "the stream brought no token");
}

/// A load while it runs.
class Run {
 public:
  Run(asio::io_context& context, const LoadTarget& target, const Workload& workload, const RunLimits& limits,
      const OnProgress& on_progress)
      : context_(context),
        target_(target),
        workload_(workload),
        limits_(limits),
        on_progress_(on_progress),
        client_(context, target.url, target.api_key),
        room_(context) {}

  /// Sends all requests, each in a coroutine of its own.
  asio::awaitable<Status> Drive() {
    if (Status resolved = co_await client_.Resolve(); !resolved.ok()) co_return resolved;
    start_ = HttpClock::now();
    asio::steady_timer due(context_);
    while (const auto request = workload_.Next()) {
      if (limits_.duration_s && request->at_s >= *limits_.duration_s) break;
      due.expires_at(start_ + Duration(request->at_s));
      co_await due.async_wait(kAwait);
      co_await WaitForRoom();
      if (limits_.duration_s && Seconds(HttpClock::now() - start_) >= *limits_.duration_s) break;
      auto body = RequestBody(target_.ask, target_.stuff, *request);
      if (!body.ok()) co_return body.status();
      ++running_;
      asio::co_spawn(context_, Send(*request, *std::move(body)),
                     [this](const std::exception_ptr& thrown) { Over(thrown); });
    }
    driven_ = true;
    room_.cancel();
    co_return OkStatus();
  }

  /// Shows progress until all is over, and ends it on Ctrl-C.
  asio::awaitable<void> Watch() {
    asio::steady_timer tick(context_);
    while (!driven_ || running_ > 0) {
      tick.expires_after(kTick);
      co_await tick.async_wait(kAwait);
      if (on_progress_) on_progress_(static_cast<int64_t>(outcomes_.size()), running_);
      if (Interrupted()) context_.stop();
    }
  }

  std::vector<RequestOutcome>& outcomes() { return outcomes_; }
  bool out_of_memory() const { return out_of_memory_; }

 private:
  asio::awaitable<void> WaitForRoom() {
    while (limits_.concurrency > 0 && running_ >= limits_.concurrency) {
      room_.expires_at(HttpClock::time_point::max());
      co_await room_.async_wait(kAwait);  // Over() cancels it
    }
  }

  void Over(const std::exception_ptr& thrown) {
    --running_;
    if (thrown) out_of_memory_ = true;
    room_.cancel();
  }

  asio::awaitable<void> Send(LoadRequest request, std::string body) {
    RequestOutcome outcome;
    outcome.request = request;
    Reply reply(target_.ask.endpoint);
    reply.reader.StopAfter(request.hang_up_after);
    const HttpClock::time_point start = HttpClock::now();
    HttpExchange exchange;
    exchange.method = "POST";
    exchange.path = target_.ask.endpoint == ApiEndpoint::kChat ? "/v1/chat/completions" : "/v1/completions";
    exchange.body = std::move(body);
    exchange.deadline = start + Duration(limits_.timeout_s);
    exchange.slow = request.slow;
    exchange.hang_up_at_once = request.hang_up_after == 0;
    exchange.on_head = [&reply](int status, std::string_view type) {
      reply.status = status;
      reply.events = type.starts_with("text/event-stream");
    };
    exchange.on_body = [&reply, start](std::string_view bytes) {
      if (reply.status == 200 && reply.events) return reply.reader.Feed(bytes, Seconds(HttpClock::now() - start));
      reply.error_body += bytes.substr(0, kMaxErrorBody - std::min(kMaxErrorBody, reply.error_body.size()));
      return OkStatus();
    };
    HttpResult result = co_await client_.Run(exchange);
    outcome.start_s = Seconds(start - start_);
    outcome.end_s = Seconds(HttpClock::now() - start_);
    Judge(result, reply, outcome);
    outcomes_.push_back(std::move(outcome));
  }

  asio::io_context& context_;
  const LoadTarget& target_;
  Workload workload_;
  const RunLimits& limits_;
  const OnProgress& on_progress_;
  HttpClient client_;
  asio::steady_timer room_;
  HttpClock::time_point start_;
  int64_t running_ = 0;
  bool driven_ = false;
  bool out_of_memory_ = false;
  std::vector<RequestOutcome> outcomes_;
};

}  // namespace

Result<std::vector<RequestOutcome>> RunLoad(const LoadTarget& target, const Workload& workload, const RunLimits& limits,
                                            const OnProgress& on_progress) {
  RaiseFileLimit();
  Status driven = Internal("the load was never begun");
  asio::io_context context(1);
  Run run(context, target, workload, limits, on_progress);
  asio::co_spawn(context, run.Drive(), [&](const std::exception_ptr& thrown, Status status) {
    driven = thrown ? ResourceExhausted("out of memory") : std::move(status);
    if (!driven.ok()) context.stop();
  });
  asio::co_spawn(context, run.Watch(), [](const std::exception_ptr&) {});
  context.run();
  if (Interrupted()) return Status(StatusCode::kCancelled, "");
  RETURN_IF_ERROR(driven);
  if (run.out_of_memory()) return ResourceExhausted("out of memory while a request ran");
  return std::move(run.outcomes());
}

}  // namespace kvasir::apps
