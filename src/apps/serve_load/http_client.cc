#include "apps/serve_load/http_client.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <algorithm>
#include <array>
#include <exception>

#include "apps/serve_load/answer_reader.h"

namespace kvasir::apps {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

namespace {

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

constexpr size_t kReadBytes = 16384;
constexpr uint32_t kMaxHeader = 16384;
constexpr uint64_t kMaxBody = uint64_t{1} << 32;
// A slow reader's: the server's writes soon have nowhere to go.
constexpr int kSlowSocketBytes = 4096;
constexpr size_t kSlowReadBytes = 512;
constexpr auto kSlowPause = std::chrono::milliseconds(50);

HttpResult Failed(HttpEnd end, std::string_view what, const boost::system::error_code& error) {
  if (error == beast::error::timeout) return {HttpEnd::kTimeout, Status(StatusCode::kIoError, "no end in time")};
  return {end, IoError("{}: {}", what, error.message())};
}

using Parser = http::response_parser<http::string_body>;

/// Hands over what the parser has of the body.
Status TakeBody(Parser& parser, const HttpExchange& exchange) {
  std::string& body = parser.get().body();
  if (body.empty()) return OkStatus();
  const Status status = exchange.on_body ? exchange.on_body(body) : OkStatus();
  body.clear();
  return status;
}

/// Parses all that it can of what was read.
HttpResult Parse(Parser& parser, beast::flat_buffer& buffer, const HttpExchange& exchange) {
  while (buffer.size() > 0 && !parser.is_done()) {
    boost::system::error_code error;
    const bool had_head = parser.is_header_done();
    const size_t used = parser.put(buffer.data(), error);
    buffer.consume(used);
    // The parser wants more than there is: what it could take, it took.
    const bool all = error == http::error::need_more;
    if (error && !all) return Failed(HttpEnd::kBroken, "the reply is no HTTP", error);
    if (!had_head && parser.is_header_done() && exchange.on_head) {
      const beast::string_view type = parser.get()[http::field::content_type];
      exchange.on_head(static_cast<int>(parser.get().result_int()), {type.data(), type.size()});
    }
    if (const Status status = TakeBody(parser, exchange); !status.ok()) return {HttpEnd::kStopped, status};
    if (all || used == 0) return {};
  }
  return {};
}

}  // namespace

/// Of an exchange on one connection.
struct HttpClient::Progress {
  bool any_reply = false;   // a byte came
  bool keep_alive = false;  // the connection may be used again
};

HttpClient::HttpClient(asio::io_context& context, ServerUrl url, std::string api_key)
    : context_(context), url_(std::move(url)), api_key_(std::move(api_key)) {}

asio::awaitable<Status> HttpClient::Resolve() {
  tcp::resolver resolver(context_);
  auto [error, found] = co_await resolver.async_resolve(url_.host, url_.port, kAwait);
  if (error) co_return IoError("{}: {}", url_.Text(), error.message());
  for (const auto& entry : found) endpoints_.push_back(entry.endpoint());
  co_return OkStatus();
}

std::string HttpClient::Head(const HttpExchange& exchange) const {
  std::string head = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kvasir\r\nAccept: */*\r\n",
                                 exchange.method, url_.base, exchange.path, url_.Authority());
  if (!api_key_.empty()) head += fmt::format("Authorization: Bearer {}\r\n", api_key_);
  if (exchange.method != "GET") {
    head += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", exchange.body.size());
  }
  return head + "\r\n";
}

asio::awaitable<HttpResult> HttpClient::Connect(const HttpExchange& exchange, std::unique_ptr<Stream>& stream) {
  boost::system::error_code error = asio::error::host_not_found;
  for (const tcp::endpoint& endpoint : endpoints_) {
    stream = std::make_unique<Stream>(context_);
    stream->expires_at(exchange.deadline);
    tcp::socket& socket = stream->socket();
    if (socket.open(endpoint.protocol(), error)) continue;
    if (socket.set_option(tcp::no_delay(true), error)) continue;
    if (exchange.slow && socket.set_option(asio::socket_base::receive_buffer_size(kSlowSocketBytes), error)) continue;
    auto [failed] = co_await stream->async_connect(endpoint, kAwait);
    error = failed;
    if (!error || error == beast::error::timeout) break;
  }
  if (error) co_return Failed(HttpEnd::kConnection, "cannot connect to " + url_.Text(), error);
  co_return HttpResult{};
}

asio::awaitable<HttpResult> HttpClient::RunOn(Stream& stream, const HttpExchange& exchange, Progress& progress) {
  stream.expires_at(exchange.deadline);
  const std::string head = Head(exchange);
  const std::array<asio::const_buffer, 2> message = {asio::buffer(head), asio::buffer(exchange.body)};
  auto [write_error, written] = co_await asio::async_write(stream, message, kAwait);
  if (write_error) co_return Failed(HttpEnd::kConnection, "cannot send the request", write_error);
  if (exchange.hang_up_at_once) co_return HttpResult{HttpEnd::kStopped, Status(StatusCode::kCancelled, "")};

  Parser parser;
  parser.eager(true);
  parser.header_limit(kMaxHeader);
  parser.body_limit(kMaxBody);
  beast::flat_buffer buffer(4 * kReadBytes);
  asio::steady_timer pause(context_);
  while (!parser.is_done()) {
    if (exchange.slow) {
      pause.expires_at(std::min(HttpClock::now() + kSlowPause, exchange.deadline));
      co_await pause.async_wait(kAwait);
    }
    const size_t room = std::min(exchange.slow ? kSlowReadBytes : kReadBytes, buffer.max_size() - buffer.size());
    if (room == 0) co_return HttpResult{HttpEnd::kBroken, InvalidData("the reply's head or a chunk's is too long")};
    auto [error, count] = co_await stream.async_read_some(buffer.prepare(room), kAwait);
    buffer.commit(count);
    progress.any_reply = progress.any_reply || count > 0;
    if (error == asio::error::eof && progress.any_reply) {
      boost::system::error_code unfinished;
      parser.put_eof(unfinished);
      if (unfinished) co_return HttpResult{HttpEnd::kBroken, InvalidData("the connection ended before the reply did")};
      break;
    }
    if (error) {
      const HttpEnd end = progress.any_reply ? HttpEnd::kBroken : HttpEnd::kConnection;
      co_return Failed(end, "the connection broke", error);
    }
    HttpResult result = Parse(parser, buffer, exchange);
    if (result.end != HttpEnd::kDone) co_return result;
  }
  progress.keep_alive = parser.keep_alive() && buffer.size() == 0 && !exchange.slow;
  co_return HttpResult{};
}

std::unique_ptr<HttpClient::Stream> HttpClient::TakeIdle() {
  // A server closes what is idle for long, and a request that meets that would look like a failure of the server's.
  constexpr auto kMostIdle = std::chrono::seconds(2);
  while (!idle_.empty()) {
    Idle idle = std::move(idle_.back());
    idle_.pop_back();
    boost::system::error_code error;
    char byte = 0;
    if (idle.stream->socket().non_blocking(true, error)) continue;
    idle.stream->socket().receive(asio::buffer(&byte, 1), tcp::socket::message_peek, error);
    const bool quiet = error == asio::error::would_block;  // neither closed nor sending what nobody asked for
    if (quiet && HttpClock::now() - idle.since < kMostIdle) return std::move(idle.stream);
  }
  return nullptr;
}

asio::awaitable<HttpResult> HttpClient::Run(const HttpExchange& exchange) {
  std::unique_ptr<Stream> stream = exchange.slow ? nullptr : TakeIdle();
  if (stream == nullptr) {
    HttpResult connected = co_await Connect(exchange, stream);
    if (connected.end != HttpEnd::kDone) co_return connected;
  }
  Progress progress;
  HttpResult result = co_await RunOn(*stream, exchange, progress);
  if (result.end == HttpEnd::kDone && progress.keep_alive) {
    stream->expires_never();
    idle_.push_back({std::move(stream), HttpClock::now()});
  }
  co_return result;
}

Result<std::string> HttpCall(const ServerUrl& url, const std::string& api_key, HttpExchange exchange,
                             std::chrono::milliseconds timeout, int* http_status) {
  constexpr size_t kMost = size_t{16} << 20;
  int status = 0;
  std::string body;
  exchange.deadline = HttpClock::now() + timeout;
  exchange.on_head = [&](int code, std::string_view) { status = code; };
  exchange.on_body = [&](std::string_view bytes) {
    if (body.size() + bytes.size() > kMost) return InvalidData("the reply is over {} bytes long", kMost);
    body += bytes;
    return OkStatus();
  };
  Status outcome = Internal("the exchange never ended");
  asio::io_context context(1);
  HttpClient client(context, url, api_key);
  const auto run = [&]() -> asio::awaitable<void> {
    outcome = co_await client.Resolve();
    if (!outcome.ok()) co_return;
    HttpResult result = co_await client.Run(exchange);
    outcome = result.status;
  };
  asio::co_spawn(context, run, [&](const std::exception_ptr& thrown) {
    if (thrown) outcome = ResourceExhausted("{}{}: out of memory", url.Text(), exchange.path);
  });
  context.run();
  const std::string where = url.Text() + exchange.path;
  if (http_status != nullptr) *http_status = status;
  if (!outcome.ok()) return outcome.WithContext(where);
  if (status != 200) return IoError("{}: status {}: {}", where, status, ServerMessage(body));
  return body;
}

}  // namespace kvasir::apps
