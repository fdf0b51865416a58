#include "server/server.h"

#include <sys/resource.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include "base/log.h"
#include "server/api_error.h"

namespace kvasir::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr auto kDrainLook = std::chrono::milliseconds(20);
// For the last words to those whose answers were cut off.
constexpr auto kGoodbye = std::chrono::seconds(2);
// Descriptors beside connections: files, the model's, standard streams.
constexpr rlim_t kOtherFiles = 64;

void RaiseFileLimit(int64_t connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = static_cast<rlim_t>(connections) + kOtherFiles;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? wanted : std::min(wanted, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
    LogWarning("only {} files can be open at once, {} connections are allowed; raise the limit (ulimit -n)",
               limit.rlim_cur, connections);
  }
}

}  // namespace

struct Server::Impl {
  explicit Impl(const ServerOptions& given) : options(given), gate(given.gate) {}

  ServerOptions options;
  Gate gate;
  std::unique_ptr<AccessLog> log;
  std::unique_ptr<EngineThread> engine;  // outlives the context, whose coroutines hold requests
  std::unique_ptr<asio::io_context> context = std::make_unique<asio::io_context>(1);
  std::unique_ptr<Service> service;
  std::unique_ptr<HttpServer> http;
  std::optional<asio::signal_set> signals;
  std::thread thread;  // runs the context
  bool draining = false;

  HttpCallbacks Callbacks();
  void WaitForSignal();
  asio::awaitable<void> Drain();
  asio::awaitable<void> WaitUntilIdle(Clock::time_point deadline);
  void Join();
};

HttpCallbacks Server::Impl::Callbacks() {
  return {.gate = [this](HttpRequest& head) { return gate.Check(head); },
          .handler = [this](const HttpRequest& request, HttpReply& reply) { return service->Handle(request, reply); },
          .answered =
              [this](const HttpRequest& request, const HttpOutcome& outcome, double milliseconds) {
                service->metrics().Response(outcome.status);
                log->Write(request, outcome, milliseconds);
              },
          .error_body = [](int status, std::string_view message) { return ErrorBody(status, message); }};
}

asio::awaitable<void> Server::Impl::WaitUntilIdle(Clock::time_point deadline) {
  asio::steady_timer timer(*context);
  while (http->busy() > 0 && Clock::now() < deadline) {
    timer.expires_after(kDrainLook);
    co_await timer.async_wait(kAwait);
  }
}

asio::awaitable<void> Server::Impl::Drain() {
  service->Drain();
  http->Drain();
  const auto patience = std::chrono::duration<double>(options.drain_seconds);
  const Clock::time_point deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(patience);
  co_await WaitUntilIdle(deadline);
  if (http->busy() > 0) {
    if (StderrTakesALine()) LogWarning("{} answers are cut off after {} s", http->busy(), options.drain_seconds);
    if (engine) engine->Stop();
    const Clock::time_point end = Clock::now() + kGoodbye;
    co_await WaitUntilIdle(end);
  }
  context->stop();
}

void Server::Impl::WaitForSignal() {
  signals->async_wait([this](const boost::system::error_code& error, int) {
    if (error) return;
    // The first one while nothing is served, and every second one.
    if (draining || !engine) std::_Exit(draining ? EXIT_FAILURE : EXIT_SUCCESS);
    draining = true;
    if (StderrTakesALine()) LogInfo("ending: {} requests are under way", http->busy());
    asio::co_spawn(*context, Drain(), asio::detached);
    WaitForSignal();
  });
}

void Server::Impl::Join() {
  if (thread.joinable()) thread.join();
  // Nobody waits for signals any more: one that comes now ends the process at once.
  signals.reset();
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() {
  impl_->context->stop();
  impl_->Join();
  // Requests end first, and let go of what belongs to the context.
  if (impl_->engine) impl_->engine->Stop();
  impl_->service->EndWork();
  impl_->http.reset();
  impl_->context.reset();
}

Result<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  RaiseFileLimit(options.http.limits.connections);
  ASSIGN_OR_RETURN(impl->log, AccessLog::Open(options.log));
  impl->service = std::make_unique<Service>(impl->context->get_executor(), options.service);
  ASSIGN_OR_RETURN(impl->http, HttpServer::Listen(*impl->context, options.http, impl->Callbacks()));
  impl->signals.emplace(*impl->context, SIGINT, SIGTERM);
  impl->WaitForSignal();
  impl->http->Start();
  impl->thread = std::thread([raw = impl.get()] {
    while (!raw->context->stopped()) {
      try {
        raw->context->run();
      } catch (const std::exception& error) {
        if (StderrTakesALine()) LogError("the server's thread: {}", error.what());
      }
    }
  });
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

uint16_t Server::port() const { return impl_->http->port(); }

Status Server::Serve(Engine& engine, const std::function<void()>& ready) {
  ServedModel model{.engine = &engine, .max_running = impl_->options.scheduler.max_running};
  if (engine.tokenizer() != nullptr) {
    ASSIGN_OR_RETURN(model.tokens, engine.token_trie());
    auto chat = ChatFormat::Make(engine, impl_->options.chat_template);
    if (chat.ok()) {
      model.chat = *std::move(chat);
    } else if (chat.status().code() == StatusCode::kNotFound && impl_->options.chat_template.empty()) {
      model.no_chat =
          "this model has no chat template, so it was probably not trained to converse; use /v1/completions, or start "
          "the server with --chat-template FILE or --chat-template chatml";
    } else {
      return chat.status();
    }
  } else {
    model.no_chat = "this model has no tokenizer, so it cannot chat; /v1/completions takes token ids";
  }
  Service* const service = impl_->service.get();
  const auto on_step = [service, last = Clock::time_point()](const Engine& of, const BatchStep& step,
                                                             const SchedulerCounts& counts) mutable {
    service->metrics().Step(step, counts);
    service->glass_box().Step(of, step, counts);
    const bool busy = counts.running + counts.waiting > 0;
    if (busy && Clock::now() - last < std::chrono::milliseconds(200)) return;
    last = Clock::now();
    const KvBlockUse use = of.CacheBlocks();
    service->metrics().KvUse(use.blocks > 0 ? static_cast<double>(use.used) / static_cast<double>(use.blocks) : 0.0);
  };
  ASSIGN_OR_RETURN(auto thread, EngineThread::Start(engine, impl_->options.scheduler, on_step));
  model.thread = thread.get();
  asio::post(*impl_->context, [this, ready, model = std::move(model), thread = std::move(thread)]() mutable {
    impl_->engine = std::move(thread);
    impl_->service->Serve(std::move(model));
    ready();
  });
  impl_->Join();
  impl_->engine->Stop();
  // What is worked on beside the server's thread uses the engine, which is the caller's again.
  impl_->service->EndWork();
  return OkStatus();
}

}  // namespace kvasir::server
