// The server as a whole: sockets, gate, routes, log, signals, and the engine's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/scheduler.h"
#include "server/access_log.h"
#include "server/gate.h"
#include "server/http_server.h"
#include "server/service.h"

namespace kvasir::server {

struct ServerOptions {
  HttpServerOptions http;
  GateOptions gate;
  ServiceOptions service;
  AccessLogOptions log;
  SchedulerOptions scheduler;
  std::string chat_template;   // ChatFormat::Make's choice
  double drain_seconds = 120;  // for answers that are under way when the server is told to end
};

/// One server in one process: SIGTERM and SIGINT are its own. The first ends it gracefully: nothing new is begun, what
/// runs is answered. The second ends the process at once.
class Server {
 public:
  /// Listens; until Serve everything that needs a model is answered with status 503. Also raises the limit of open
  /// files to what the limits of connections need, as far as the system lets it.
  static Result<std::unique_ptr<Server>> Start(const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;

  /// Serves the model until a signal. `ready` is called, from another thread, when requests are answered. Call once.
  Status Serve(Engine& engine, const std::function<void()>& ready);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir::server
