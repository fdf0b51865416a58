// Requests and replies of HTTP as the server's routes see them; the sockets behind are in http_server.cc.
#pragma once

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir::server {

namespace asio = boost::asio;

using Headers = std::vector<std::pair<std::string, std::string>>;

/// A request that has been read whole and has passed the gate.
struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // as it was sent, without what follows a '?'
  std::string query;
  Headers headers;
  std::string body;
  std::string remote;       // the client's address
  std::string id;           // of the request: the client's own X-Request-Id, or a new one
  std::string traceparent;  // W3C Trace Context, if the client sent a valid one
  std::string key_name;     // whose key was given: a digest that tells keys apart and gives none away; empty: none
  Headers reply_headers;    // that every answer to it bears

  /// The first header of this name in any case, or null.
  const std::string* Header(std::string_view name) const;
};

/// A whole answer.
struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  Headers headers;
};

/// Where a request's answer goes: either one Send, or Begin, Writes and End. Belongs to the connection. Of the server's
/// thread.
class HttpReply {
 public:
  virtual ~HttpReply() = default;

  virtual asio::awaitable<void> Send(HttpResponse response) = 0;

  /// Begins an answer that comes piece by piece. Nothing is sent for HEAD.
  virtual asio::awaitable<void> Begin(int status, std::string_view content_type) = 0;
  /// False: the client has gone, or did not read for too long. A later call does nothing.
  virtual asio::awaitable<bool> Write(std::string_view piece) = 0;
  virtual asio::awaitable<void> End() = 0;

  /// Whether the client has hung up; asks the system.
  virtual bool Gone() = 0;
  virtual bool begun() const = 0;
};

/// Bytes of an answer so far and its status, for the log.
struct HttpOutcome {
  int status = 0;
  int64_t bytes = 0;
};

/// What stands between a socket and a handler.
struct HttpLimits {
  int64_t header_bytes = 32 << 10;
  int64_t body_bytes = 16 << 20;
  int64_t all_bodies_bytes = 256 << 20;  // of all requests that are being read or answered, but for small ones
  int64_t connections = 4096;
  double header_seconds = 10;  // from a request's first byte to the end of its headers
  double body_seconds = 60;    // for all of the body
  double idle_seconds = 75;    // between two requests
  double write_seconds = 30;   // without a byte taken by the client
};

/// The lower-case letters of ASCII; others as they are.
std::string AsciiLower(std::string_view text);
/// Whether the texts are equal but for the case of ASCII letters.
bool EqualsIgnoringCase(std::string_view a, std::string_view b);
/// "a/b" of "a%2Fb"; nothing where a '%' has no two hexadecimal digits behind it. RFC 3986, 2.1.
std::optional<std::string> PercentDecode(std::string_view text);

}  // namespace kvasir::server
