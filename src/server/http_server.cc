#include "server/http_server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <exception>
#include <set>
#include <utility>

#include "base/log.h"
#include "server/access_log.h"
#include "server/http_connection.h"

// Asio also returns the error_code that it was given to fill in.
// NOLINTBEGIN(bugprone-unused-return-value)
namespace kvasir::server {
namespace {

using asio::ip::tcp;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // when descriptors have run out

Result<asio::ssl::context> MakeTls(const HttpServerOptions& options) {
  asio::ssl::context tls(asio::ssl::context::tls_server);
  tls.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                  asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1 |
                  asio::ssl::context::single_dh_use);
  boost::system::error_code error;
  tls.use_certificate_chain_file(options.tls_certificate, error);
  if (error) return IoError("TLS certificate {}: {}", options.tls_certificate, error.message());
  tls.use_private_key_file(options.tls_key, asio::ssl::context::pem, error);
  if (error) return IoError("TLS key {}: {}", options.tls_key, error.message());
  if (SSL_CTX_check_private_key(tls.native_handle()) != 1) {
    return IoError("the TLS key {} is not that of the certificate {}", options.tls_key, options.tls_certificate);
  }
  return tls;
}

Result<tcp::acceptor> Bind(asio::io_context& context, const HttpServerOptions& options) {
  boost::system::error_code error;
  tcp::resolver resolver(context);
  const auto found = resolver.resolve(options.host, std::to_string(options.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) return IoError("--host {}: {}", options.host, error.message());
  tcp::acceptor acceptor(context);
  for (const auto& entry : found) {
    error = {};
    acceptor.close(error);
    acceptor.open(entry.endpoint().protocol(), error);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error && entry.endpoint().address().is_v6() && entry.endpoint().address().is_unspecified()) {
      acceptor.set_option(asio::ip::v6_only(false), error);  // "::" means IPv4 too
    }
    if (!error) acceptor.bind(entry.endpoint(), error);
    if (!error) acceptor.listen(4096, error);
    if (!error) return acceptor;
  }
  return IoError("cannot listen on {}:{}: {}; choose another with --host and --port", options.host, options.port,
                 error.message());
}

class Server final : public HttpServer {
 public:
  Server(tcp::acceptor acceptor, std::optional<asio::ssl::context> tls, const HttpServerOptions& options,
         HttpCallbacks callbacks)
      : acceptor_(std::move(acceptor)),
        tls_(std::move(tls)),
        port_(acceptor_.local_endpoint().port()),
        context_{.limits = options.limits, .callbacks = std::move(callbacks)} {}

  void Start() override { asio::co_spawn(acceptor_.get_executor(), Accept(), asio::detached); }

  void Drain() override {
    context_.draining = true;
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    for (Connection* connection : connections_) connection->CloseIfIdle();
  }

  uint16_t port() const override { return port_; }
  int64_t connections() const override { return static_cast<int64_t>(connections_.size()); }
  int64_t busy() const override { return context_.busy; }

 private:
  asio::awaitable<void> Accept() {
    while (acceptor_.is_open()) {
      auto [error, socket] = co_await acceptor_.async_accept(kAwait);
      if (context_.draining) co_return;
      if (error) {
        if (StderrTakesALine()) LogWarning("a connection could not be accepted: {}", error.message());
        asio::steady_timer pause(acceptor_.get_executor(), kAcceptPause);
        co_await pause.async_wait(kAwait);
        continue;
      }
      boost::system::error_code ignored;
      socket.set_option(tcp::no_delay(true), ignored);
      if (connections() >= context_.limits.connections) {
        // The answer fits into the empty buffer of a new socket.
        const std::string body = context_.callbacks.error_body(503, "too many connections; try again later");
        const std::string text = fmt::format(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: "
            "{}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{}",
            body.size(), body);
        socket.non_blocking(true, ignored);
        if (!tls_) socket.write_some(asio::buffer(text), ignored);
        socket.shutdown(tcp::socket::shutdown_send, ignored);
        continue;
      }
      if (tls_) {
        Spawn<TlsStream>(TlsStream(std::move(socket), *tls_));
      } else {
        Spawn<PlainStream>(PlainStream(std::move(socket)));
      }
    }
  }

  template <typename Stream>
  void Spawn(Stream stream) {
    auto connection = std::make_shared<ConnectionOn<Stream>>(std::move(stream), context_);
    connections_.insert(connection.get());
    asio::co_spawn(acceptor_.get_executor(), connection->Run(), [this, connection](const std::exception_ptr& failure) {
      connections_.erase(connection.get());
      if (!failure) return;
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& error) {
        if (StderrTakesALine()) LogError("a connection broke: {}", error.what());
      }
    });
  }

  tcp::acceptor acceptor_;
  std::optional<asio::ssl::context> tls_;
  uint16_t port_;
  ConnectionContext context_;
  std::set<Connection*> connections_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Listen(asio::io_context& context, const HttpServerOptions& options,
                                                       HttpCallbacks callbacks) {
  std::optional<asio::ssl::context> tls;
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    return InvalidArgument("TLS needs both a certificate and its key");
  }
  if (!options.tls_certificate.empty()) {
    ASSIGN_OR_RETURN(tls, MakeTls(options));
  }
  ASSIGN_OR_RETURN(tcp::acceptor acceptor, Bind(context, options));
  return std::make_unique<Server>(std::move(acceptor), std::move(tls), options, std::move(callbacks));
}

}  // namespace kvasir::server
// NOLINTEND(bugprone-unused-return-value)
