// A client of one server over HTTP/1.1, as coroutines of one thread. Included by few files: Asio compiles slowly.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/tcp_stream.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/serve_load/url.h"
#include "base/status.h"

namespace kvasir::apps {

using HttpClock = std::chrono::steady_clock;

/// One request and what is done with its reply. All that it refers to lives until the exchange is over.
struct HttpExchange {
  std::string method = "GET";
  std::string path;  // behind the URL's base: "/v1/models"
  std::string body;  // JSON; none with GET
  HttpClock::time_point deadline = HttpClock::time_point::max();
  bool slow = false;             // reads a little at a time, with pauses
  bool hang_up_at_once = false;  // as soon as the request is on its way
  /// The reply has begun.
  std::function<void(int status, std::string_view content_type)> on_head;
  /// Bytes of its body, as they come. An error ends the exchange.
  std::function<Status(std::string_view bytes)> on_body;
};

enum class HttpEnd {
  kDone,
  kConnection,  // none could be made, or it broke before a reply
  kTimeout,     // the deadline came
  kBroken,      // the reply is no HTTP, or ended too early
  kStopped,     // by on_body or hang_up_at_once
};

struct HttpResult {
  HttpEnd end = HttpEnd::kDone;
  Status status;  // why it is not done
};

/// Keeps connections that are idle for the next exchange. Not thread-safe: everything runs in the context's thread.
/// Outlives its exchanges; the context outlives it.
class HttpClient {
 public:
  /// `api_key` goes into the header Authorization; "" for none. REQUIRES: it holds no control characters.
  HttpClient(boost::asio::io_context& context, ServerUrl url, std::string api_key);

  /// Finds the server's addresses; before the first exchange.
  boost::asio::awaitable<Status> Resolve();
  boost::asio::awaitable<HttpResult> Run(const HttpExchange& exchange);

 private:
  using Stream = boost::beast::tcp_stream;
  struct Idle {
    std::unique_ptr<Stream> stream;
    HttpClock::time_point since;
  };
  struct Progress;

  std::unique_ptr<Stream> TakeIdle();
  boost::asio::awaitable<HttpResult> Connect(const HttpExchange& exchange, std::unique_ptr<Stream>& stream);
  boost::asio::awaitable<HttpResult> RunOn(Stream& stream, const HttpExchange& exchange, Progress& progress);
  std::string Head(const HttpExchange& exchange) const;

  boost::asio::io_context& context_;
  ServerUrl url_;
  std::string api_key_;
  std::vector<boost::asio::ip::tcp::endpoint> endpoints_;
  std::vector<Idle> idle_;
};

/// One exchange by itself. The body of a reply with status 200; an error with the server's words for another one.
/// Blocks; at most 16 MiB.
Result<std::string> HttpCall(const ServerUrl& url, const std::string& api_key, HttpExchange exchange,
                             std::chrono::milliseconds timeout, int* http_status = nullptr);

}  // namespace kvasir::apps
