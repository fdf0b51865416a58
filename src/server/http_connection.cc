#include "server/http_connection.h"

#include <fmt/format.h>
#include <poll.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/beast/http/error.hpp>

#include <algorithm>
#include <ctime>
#include <exception>
#include <new>
#include <utility>

#include "base/log.h"
#include "server/access_log.h"

namespace kvasir::server {
namespace {

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 16 << 10;
constexpr int kClientGone = 499;  // nginx's word for it, in the log and metrics only
// Everything that a co_await takes is a named variable: GCC 12 destroys some temporaries there twice.

// What is read and thrown away of a client that still sends when it has been refused, so that it sees the answer: a
// connection that is closed with bytes unread is reset, and the answer may be lost with it.
constexpr double kLingerSeconds = 3;
constexpr size_t kLingerBytes = 256 << 20;
// Who is refused and does not read is not waited for as others are: such an answer fits into any buffer with room.
constexpr double kRefusalSeconds = 3;
// A read that was between two of its pieces when the time was up has missed it, and is ended so much later.
constexpr auto kAgain = std::chrono::milliseconds(100);

/// The status and text for a request that could not be read; 0: there is nobody to tell.
std::pair<int, std::string_view> ReadError(const beast::error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return {431, "the request's headers are larger than the server allows"};
  }
  if (error == http::error::body_limit) return {413, "the request's body is larger than the server allows"};
  if (error == http::error::end_of_stream || error == http::error::partial_message) return {0, {}};
  if (error.category() == make_error_code(http::error::bad_method).category()) {
    return {400, "the request is not well-formed HTTP"};
  }
  return {0, {}};
}

/// What makes a request's end, or who it is for, a matter of opinion, so that a proxy before this server might have
/// another one (RFC 9112: 3.2, 6.1); empty: nothing. Beast itself refuses lengths that differ, and a length with
/// chunks.
std::string_view Ambiguity(const http::request_header<>& head) {
  const bool old = head.version() < 11;
  if (!old && head.count(http::field::host) == 0) return "a request of HTTP/1.1 must have a Host header";
  const auto codings = head.count(http::field::transfer_encoding);
  if (codings == 0) return {};
  if (old) return "HTTP/1.0 knows no Transfer-Encoding";
  if (codings > 1 || !EqualsIgnoringCase(std::string_view(head[http::field::transfer_encoding]), "chunked")) {
    return "the only Transfer-Encoding that is understood is \"chunked\"";
  }
  return {};
}

/// Beast takes any byte in a quoted extension of a chunk. Where a proxy takes a line feed there for the line's end, it
/// sees another body than this server does.
void CheckExtensions(std::string_view extensions, beast::error_code& error) {
  const auto bad = [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7F; };
  if (std::ranges::any_of(extensions, bad)) error = http::error::bad_chunk_extension;
}

/// Counts while it lives.
class Counted {
 public:
  explicit Counted(int64_t& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  int64_t& count_;
};

/// Whether answers of this status have neither a body nor a length (RFC 9110, 8.6).
bool IsEmpty(int status) { return status == 204 || status == 304; }

/// What keeps proxies from collecting a stream.
Headers StreamHeaders() { return {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}; }

}  // namespace

std::string StatusLine(int status) {
  return fmt::format("{} {}", status, std::string_view(http::obsolete_reason(static_cast<http::status>(status))));
}

std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[64];
  const size_t length = std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text, length};
}

bool HungUp(int socket) {
  pollfd entry{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

ReadDeadline::ReadDeadline(beast::tcp_stream& stream, double seconds)
    : state_(std::make_shared<State>(State{.timer = asio::steady_timer(stream.get_executor()), .stream = &stream})) {
  stream.expires_never();
  const std::chrono::duration<double> time(seconds);
  state_->timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(time));
  Wait(state_);
}

ReadDeadline::~ReadDeadline() {
  state_->stream = nullptr;
  state_->timer.cancel();
}

void ReadDeadline::Wait(const std::shared_ptr<State>& state) {
  state->timer.async_wait([state](const beast::error_code&) {
    if (state->stream == nullptr) return;
    state->passed = true;
    beast::error_code ignored;
    // Asio also returns the error_code that it was given to fill in.
    state->stream->socket().cancel(ignored);  // NOLINT(bugprone-unused-return-value)
    state->timer.expires_after(kAgain);
    Wait(state);
  });
}

template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::Run() {
  buffer_.max_size(static_cast<size_t>(context_.limits.header_bytes) + kReadBytes);
  if (co_await Handshake()) {
    while (co_await WaitForRequest()) {
      busy_ = true;
      const bool more = co_await CountAndAnswer();
      busy_ = false;
      if (!more || last_ || broken_ || context_.draining) break;
    }
  }
  if (body_unread_ && !broken_) co_await Linger();
  beast::get_lowest_layer(stream_).close();
}

template <typename Stream>
asio::awaitable<bool> ConnectionOn<Stream>::Handshake() {
  if constexpr (std::is_same_v<Stream, TlsStream>) {
    ExpireAfter(context_.limits.header_seconds);
    const auto [error] = co_await stream_.async_handshake(asio::ssl::stream_base::server, kAwait);
    co_return !error;
  }
  co_return true;
}

/// Waits for a request's first bytes.
template <typename Stream>
asio::awaitable<bool> ConnectionOn<Stream>::WaitForRequest() {
  if (buffer_.size() > 0) co_return true;
  ExpireAfter(context_.limits.idle_seconds);
  const auto [error, count] = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
  if (error) co_return false;
  buffer_.commit(count);
  co_return true;
}

template <typename Stream>
void ConnectionOn<Stream>::TakeHead(const Parser& parser) {
  const auto& head = parser.get();
  request_.method = std::string(head.method_string());
  const std::string target(head.target());
  const size_t mark = target.find('?');
  request_.path = target.substr(0, mark);
  if (mark != target.npos) request_.query = target.substr(mark + 1);
  for (const auto& field : head) {
    request_.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  }
  old_ = head.version() < 11;
  last_ = !head.keep_alive();
  body_unread_ = !parser.is_done();
}

template <typename Stream>
asio::awaitable<bool> ConnectionOn<Stream>::CountAndAnswer() {
  const Counted counted(context_.busy);
  const bool more = co_await ReadAndAnswer();
  co_return more;
}

/// Reads one request and has it answered. False: the connection cannot go on.
template <typename Stream>
asio::awaitable<bool> ConnectionOn<Stream>::ReadAndAnswer() {
  started_ = Clock::now();
  request_ = {};
  outcome_ = {};
  beast::error_code ignored;
  request_.remote = beast::get_lowest_layer(stream_).socket().remote_endpoint(ignored).address().to_string();
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(context_.limits.header_bytes));
  parser.body_limit(boost::none);  // until it is known who asks
  std::optional<ReadDeadline> deadline;
  deadline.emplace(beast::get_lowest_layer(stream_), context_.limits.header_seconds);
  const auto [error, count] = co_await http::async_read_header(stream_, buffer_, parser, kAwait);
  static_cast<void>(count);
  const bool late = deadline->passed();
  deadline.reset();
  if (error) {
    body_unread_ = true;
    co_await RefuseUnread(error, late);
    co_return false;
  }
  TakeHead(parser);
  if (const std::string_view ambiguity = Ambiguity(parser.get()); !ambiguity.empty()) {
    body_unread_ = true;
    co_await Refuse(400, ambiguity);
    co_return false;
  }
  if (auto refusal = context_.callbacks.gate(request_)) {
    last_ = last_ || body_unread_;
    co_await Send(std::move(*refusal));
    co_await Answer();
    co_return !last_;
  }
  BodyShare share(context_);
  const bool read = co_await ReadBody(parser, share);
  if (read) co_await Answer();
  request_.body = {};
  co_return read;
}

template <typename Stream>
asio::awaitable<bool> ConnectionOn<Stream>::ReadBody(Parser& parser, BodyShare& share) {
  const auto most = static_cast<uint64_t>(context_.limits.body_bytes);
  parser.body_limit(most);
  if (parser.content_length().value_or(0) > most) {
    const auto [status, message] = ReadError(http::error::body_limit);
    co_await Refuse(status, message);
    co_return false;
  }
  if (!parser.is_done()) {
    const std::string* const expected = request_.Header("Expect");
    if (expected != nullptr && EqualsIgnoringCase(*expected, "100-continue")) {
      const bool written = co_await WriteAll("HTTP/1.1 100 Continue\r\n\r\n");
      if (!written) co_return false;
    }
    parser.eager(true);
  }
  auto check = [](uint64_t, beast::string_view extensions, beast::error_code& error) {
    CheckExtensions({extensions.data(), extensions.size()}, error);
  };
  parser.on_chunk_header(check);
  const ReadDeadline deadline(beast::get_lowest_layer(stream_), context_.limits.body_seconds);
  while (!parser.is_done()) {
    const auto [error, count] = co_await http::async_read_some(stream_, buffer_, parser, kAwait);
    static_cast<void>(count);
    if (error) {
      co_await RefuseUnread(error, deadline.passed());
      co_return false;
    }
    if (!share.Grow(static_cast<int64_t>(parser.get().body().size()))) {
      co_await Refuse(503, "too many large requests at once; try again later");
      co_return false;
    }
  }
  body_unread_ = false;
  request_.body = std::move(parser.get().body());
  co_return true;
}

/// Calls the handler, unless the request has been answered already, and tells of the answer.
template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::Answer() {
  beast::get_lowest_layer(stream_).expires_never();
  std::string failure;
  try {
    if (!begun()) co_await context_.callbacks.handler(request_, *this);
  } catch (const std::bad_alloc&) {
    failure = "out of memory";
  } catch (const std::exception& error) {
    failure = error.what();
  }
  if (!failure.empty()) {
    if (StderrTakesALine()) LogError("request {}: {}", request_.id, failure);
    last_ = true;
    if (!begun()) {
      HttpResponse response;
      response.status = 500;
      response.body = context_.callbacks.error_body(500, "internal error");
      co_await Send(std::move(response));
    } else {
      broken_ = true;
    }
  }
  if (!begun()) {
    // The client has gone, and was answered nothing: an answer to what it sent behind would pass for this one's.
    broken_ = true;
    outcome_.status = kClientGone;
  }
  context_.callbacks.answered(request_, outcome_,
                              std::chrono::duration<double, std::milli>(Clock::now() - started_).count());
}

/// An answer to a request that will not be read to its end.
template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::Refuse(int status, std::string_view message) {
  last_ = true;
  refused_ = true;
  HttpResponse response;
  response.status = status;
  response.body = context_.callbacks.error_body(status, message);
  if (status == 503) response.headers.emplace_back("Retry-After", "1");
  co_await Send(std::move(response));
  co_await Answer();
}

/// An answer to a request that could not be read, where there is somebody to answer. Something of it has come: who has
/// sent nothing is no request's client.
template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::RefuseUnread(const beast::error_code& error, bool late) {
  const auto [status, message] =
      late ? std::pair<int, std::string_view>(408, "the request did not come within the server's limits of time")
           : ReadError(error);
  broken_ = status == 0;
  if (status != 0) co_await Refuse(status, message);
}

/// Reads what the client still sends, for a while.
template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::Linger() {
  beast::error_code ignored;
  auto& lowest = beast::get_lowest_layer(stream_);
  lowest.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  lowest.expires_after(std::chrono::milliseconds(static_cast<int64_t>(kLingerSeconds * 1000)));
  std::string thrown_away(64 << 10, '\0');
  for (size_t total = 0; total < kLingerBytes;) {
    const auto [error, count] = co_await lowest.async_read_some(asio::buffer(thrown_away), kAwait);
    if (error) break;
    total += count;
  }
}

template <typename Stream>
std::string ConnectionOn<Stream>::Head(int status, std::string_view type, std::optional<size_t> length,
                                       const Headers& more) const {
  std::string head = fmt::format("HTTP/1.1 {}\r\nServer: kvasir\r\nDate: {}\r\n", StatusLine(status), HttpDate());
  const auto add = [&](std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(head), "{}: {}\r\n", name, value);
  };
  if (!type.empty()) add("Content-Type", type);
  if (length) add("Content-Length", std::to_string(*length));
  if (!length && !old_ && !IsEmpty(status)) add("Transfer-Encoding", "chunked");
  add("X-Content-Type-Options", "nosniff");
  for (const auto& [name, value] : request_.reply_headers) add(name, value);
  for (const auto& [name, value] : more) add(name, value);
  add("Connection", last_ || context_.draining ? "close" : "keep-alive");
  return head += "\r\n";
}

/// Writes all of it; a client that takes nothing for a while is given up.
template <typename Stream>
asio::awaitable<bool> ConnectionOn<Stream>::WriteAll(std::string_view bytes) {
  while (!bytes.empty() && !broken_) {
    ExpireAfter(refused_ ? std::min(kRefusalSeconds, context_.limits.write_seconds) : context_.limits.write_seconds);
    const auto [error, count] = co_await stream_.async_write_some(asio::buffer(bytes.data(), bytes.size()), kAwait);
    if (error) broken_ = true;
    bytes.remove_prefix(count);
    outcome_.bytes += static_cast<int64_t>(count);
  }
  beast::get_lowest_layer(stream_).expires_never();
  co_return !broken_;
}

template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::Send(HttpResponse response) {
  outcome_.status = response.status;
  const auto length = IsEmpty(response.status) ? std::optional<size_t>() : response.body.size();
  std::string bytes =
      Head(response.status, response.body.empty() ? "" : response.content_type, length, response.headers);
  if (request_.method != "HEAD") bytes += response.body;
  co_await WriteAll(bytes);
}

template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::Begin(int status, std::string_view content_type) {
  outcome_.status = status;
  last_ = last_ || old_;
  chunked_ = !old_;
  const std::string head = Head(status, content_type, {}, StreamHeaders());
  co_await WriteAll(head);
}

template <typename Stream>
asio::awaitable<bool> ConnectionOn<Stream>::Write(std::string_view piece) {
  if (piece.empty() || request_.method == "HEAD") co_return !broken_;
  std::string chunk;
  if (chunked_) {
    chunk = fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
    piece = chunk;
  }
  const bool written = co_await WriteAll(piece);
  co_return written;
}

template <typename Stream>
asio::awaitable<void> ConnectionOn<Stream>::End() {
  if (chunked_ && request_.method != "HEAD") co_await WriteAll("0\r\n\r\n");
}

template <typename Stream>
bool ConnectionOn<Stream>::Gone() {
  return broken_ || HungUp(beast::get_lowest_layer(stream_).socket().native_handle());
}

template class ConnectionOn<PlainStream>;
template class ConnectionOn<TlsStream>;

}  // namespace kvasir::server
