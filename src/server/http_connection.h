// One connection of the server: reads a request, has it answered, and again.
#pragma once

#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>

#include <chrono>
#include <memory>
#include <string>

#include "server/http_server.h"

namespace kvasir::server {

namespace beast = boost::beast;
namespace http = boost::beast::http;

using PlainStream = beast::tcp_stream;
using TlsStream = beast::ssl_stream<beast::tcp_stream>;

/// What connections share with their server.
struct ConnectionContext {
  HttpLimits limits;
  HttpCallbacks callbacks;
  int64_t busy = 0;
  int64_t body_bytes = 0;  // of requests that are being read or answered, small ones left out
  bool draining = false;
};

/// A body's part of what all bodies may have together, as it comes in. What one that was only announced may have is
/// nobody's: a few clients that send nothing would else keep out all others.
class BodyShare {
 public:
  explicit BodyShare(ConnectionContext& context) : context_(context) {}
  ~BodyShare() { context_.body_bytes -= counted_; }
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;

  /// The body has so many bytes now. False: there is no room for them.
  bool Grow(int64_t bytes) {
    if (bytes <= kSmallBytes) return true;  // the limit of connections bounds these
    const int64_t more = bytes - counted_;
    if (context_.body_bytes + more > context_.limits.all_bodies_bytes) return false;
    context_.body_bytes += more;
    counted_ = bytes;
    return true;
  }

 private:
  static constexpr int64_t kSmallBytes = 64 << 10;

  ConnectionContext& context_;
  int64_t counted_ = 0;
};

/// Ends what is read from a stream when its time is up, but leaves the stream open, so that the client can be told;
/// Beast's own timer would close it. Of the server's thread.
class ReadDeadline {
 public:
  ReadDeadline(beast::tcp_stream& stream, double seconds);
  ~ReadDeadline();
  ReadDeadline(const ReadDeadline&) = delete;
  ReadDeadline& operator=(const ReadDeadline&) = delete;

  bool passed() const { return state_->passed; }

 private:
  // What the timer's handler holds: it may be called when the deadline is no more.
  struct State {
    asio::steady_timer timer;
    beast::tcp_stream* stream;  // null: nobody waits any more
    bool passed = false;
  };
  static void Wait(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

/// A connection as its server sees it.
class Connection {
 public:
  virtual ~Connection() = default;
  /// Closes it if it waits for a request.
  virtual void CloseIfIdle() = 0;
};

/// Reading and answering on a stream of bytes, plain or TLS.
template <typename Stream>
class ConnectionOn final : public Connection, private HttpReply {
 public:
  ConnectionOn(Stream stream, ConnectionContext& context) : stream_(std::move(stream)), context_(context) {}

  /// Returns when the connection has ended.
  asio::awaitable<void> Run();

  void CloseIfIdle() override {
    if (!busy_) beast::get_lowest_layer(stream_).close();
  }

 private:
  using Parser = http::request_parser<http::string_body>;
  using Clock = std::chrono::steady_clock;

  void ExpireAfter(double seconds) {
    beast::get_lowest_layer(stream_).expires_after(
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
  }

  asio::awaitable<bool> Handshake();
  asio::awaitable<bool> WaitForRequest();
  asio::awaitable<bool> CountAndAnswer();
  asio::awaitable<bool> ReadAndAnswer();
  asio::awaitable<bool> ReadBody(Parser& parser, BodyShare& share);
  asio::awaitable<void> Answer();
  asio::awaitable<void> Refuse(int status, std::string_view message);
  asio::awaitable<void> RefuseUnread(const beast::error_code& error, bool late);
  asio::awaitable<void> Linger();
  void TakeHead(const Parser& parser);
  std::string Head(int status, std::string_view type, std::optional<size_t> length, const Headers& more) const;
  asio::awaitable<bool> WriteAll(std::string_view bytes);

  // HttpReply
  asio::awaitable<void> Send(HttpResponse response) override;
  asio::awaitable<void> Begin(int status, std::string_view content_type) override;
  asio::awaitable<bool> Write(std::string_view piece) override;
  asio::awaitable<void> End() override;
  bool Gone() override;
  bool begun() const override { return outcome_.status != 0; }

  Stream stream_;
  ConnectionContext& context_;
  beast::flat_buffer buffer_;
  bool busy_ = false;    // from a request's first byte to its answer's last
  bool broken_ = false;  // nothing can be written any more
  bool last_ = false;    // the connection ends behind this answer
  bool refused_ = false;
  bool chunked_ = false;
  bool old_ = false;  // HTTP/1.0
  bool body_unread_ = false;
  HttpRequest request_;
  HttpOutcome outcome_;
  Clock::time_point started_;
};

/// The status' name, as in "404 Not Found".
std::string StatusLine(int status);
/// Now, as Date has it.
std::string HttpDate();
/// Whether the peer of a socket has closed its side, or the connection is broken.
bool HungUp(int socket);

extern template class ConnectionOn<PlainStream>;
extern template class ConnectionOn<TlsStream>;

}  // namespace kvasir::server
