// HTTP/1.1 over TCP and TLS: listens, reads requests under limits, asks the gate, calls the handler.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "server/http.h"

namespace kvasir::server {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;         // 0: any that is free
  std::string tls_certificate;  // PEM files; both or none
  std::string tls_key;
  HttpLimits limits;
};

struct HttpCallbacks {
  /// Asked when a request's head has been read; may fill in key_name and reply_headers. What it returns is the answer,
  /// and the body is not read.
  std::function<std::optional<HttpResponse>(HttpRequest& head)> gate;
  /// Answers a request. An exception is answered with status 500, or ends the stream that was begun.
  std::function<asio::awaitable<void>(const HttpRequest& request, HttpReply& reply)> handler;
  /// Told of every request that was answered, also by the gate, and of those that could not be read (status 400, …).
  std::function<void(const HttpRequest& request, const HttpOutcome& outcome, double milliseconds)> answered;
  /// The body of an error that the server finds itself ("400 Bad Request", a text that says why).
  std::function<std::string(int status, std::string_view message)> error_body;
};

/// All methods are for the thread that runs the io_context. A connection carries one request at a time; requests that
/// are malformed, ambiguous (RFC 9112, 6.3: a length and chunks) or over a limit end their connection.
class HttpServer {
 public:
  /// Binds and listens; nothing is accepted before Start. IoError: the port is in use, the host unknown, a TLS file
  /// bad.
  static Result<std::unique_ptr<HttpServer>> Listen(asio::io_context& context, const HttpServerOptions& options,
                                                    HttpCallbacks callbacks);
  virtual ~HttpServer() = default;

  virtual void Start() = 0;
  /// Takes no more connections; idle ones are closed, others when their request has been answered.
  virtual void Drain() = 0;
  virtual uint16_t port() const = 0;
  virtual int64_t connections() const = 0;
  /// Requests that are being read or answered.
  virtual int64_t busy() const = 0;
};

}  // namespace kvasir::server
