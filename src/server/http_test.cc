#include "server/http.h"

#include <gtest/gtest.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/http_server.h"

namespace kvasir::server {
namespace {

/// A server without a model, which answers every request with so many bytes, and what it has told of its answers.
class SmallServer {
 public:
  explicit SmallServer(const HttpLimits& limits, size_t answer_bytes = 2) {
    HttpCallbacks callbacks{
        .gate = [](HttpRequest&) { return std::optional<HttpResponse>(); },
        .handler = [answer_bytes](const HttpRequest&, HttpReply& reply) -> asio::awaitable<void> {
          HttpResponse response{.body = std::string(answer_bytes, 'x')};
          co_await reply.Send(std::move(response));
        },
        .answered = [this](const HttpRequest&, const HttpOutcome& outcome, double) { told_.push_back(outcome.status); },
        .error_body = [](int status, std::string_view) { return std::to_string(status); }};
    auto server = HttpServer::Listen(context_, {.port = 0, .limits = limits}, std::move(callbacks));
    KVASIR_CHECK(server.ok());
    server_ = *std::move(server);
    server_->Start();
    thread_ = std::thread([this] { context_.run(); });
  }

  ~SmallServer() {
    context_.stop();
    thread_.join();
  }

  /// Statuses of all answers, once there have been so many and no connection is left.
  std::vector<int> Told(size_t count) {
    while (true) {
      std::promise<bool> ended;
      asio::post(context_, [&] { ended.set_value(told_.size() >= count && server_->connections() == 0); });
      if (ended.get_future().get()) return told_;
      std::this_thread::yield();
    }
  }

  asio::ip::tcp::socket Connect() {
    asio::ip::tcp::socket socket(client_);
    socket.open(asio::ip::tcp::v4());
    socket.set_option(asio::socket_base::receive_buffer_size(4096));
    socket.connect({asio::ip::address_v4::loopback(), server_->port()});
    return socket;
  }

  /// All that the server says to these bytes until it closes.
  std::string Say(std::string_view text) {
    asio::ip::tcp::socket socket = Connect();
    asio::write(socket, asio::buffer(text.data(), text.size()));
    std::string said;
    boost::system::error_code end;
    asio::read(socket, asio::dynamic_buffer(said), end);
    EXPECT_EQ(end, asio::error::eof);
    return said;
  }

 private:
  asio::io_context context_{1};
  asio::io_context client_;
  std::vector<int> told_;  // of the server's thread
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

constexpr HttpLimits kHasty{.header_seconds = 0.05, .body_seconds = 0.05, .idle_seconds = 0.05};

bool IsTimeout(std::string_view said) {
  return said.starts_with("HTTP/1.1 408 ") && said.find("\r\nConnection: close\r\n") != said.npos &&
         said.ends_with("\r\n\r\n408");
}

TEST(HttpServerTest, WhatDoesNotComeInTimeIsAnswered) {
  SmallServer server(kHasty);
  for (const char* part :
       {"G", "GET / HTTP/1.1\r\nHost: a\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"}) {
    EXPECT_TRUE(IsTimeout(server.Say(part))) << part;
  }
  EXPECT_EQ(server.Told(5), std::vector<int>(5, 408));
}

TEST(HttpServerTest, AnIdleConnectionIsClosedWithoutAWord) {
  SmallServer server(kHasty);
  EXPECT_EQ(server.Say(""), "");
  const std::string request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  const std::string one = server.Say(request);
  EXPECT_TRUE(one.starts_with("HTTP/1.1 200 ") && one.ends_with("\r\n\r\nxx")) << one;
  const std::string two = server.Say(request + "GET /");  // a part of the next one is no silence
  const size_t second = two.find("HTTP/1.1 408 ");
  ASSERT_NE(second, two.npos) << two;
  EXPECT_TRUE(two.starts_with("HTTP/1.1 200 ") && IsTimeout(std::string_view(two).substr(second))) << two;
  EXPECT_EQ(server.Told(3), (std::vector<int>{200, 200, 408}));
}

TEST(HttpServerTest, NobodyIsWaitedForWhoDoesNotRead) {
  HttpLimits limits = kHasty;
  limits.write_seconds = 3600;  // for those who are answered, not for those who are refused
  SmallServer server(limits, 20'000);
  asio::ip::tcp::socket socket = server.Connect();
  const std::string_view text = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /";
  asio::write(socket, asio::buffer(text.data(), text.size()));
  EXPECT_EQ(server.Told(2), (std::vector<int>{200, 408}));
}

TEST(HttpTest, CaseOfAsciiLettersOnly) {
  EXPECT_EQ(AsciiLower("ABCxyz-[`{\xC4"), "abcxyz-[`{\xC4");
  EXPECT_TRUE(EqualsIgnoringCase("Content-Type", "content-TYPE"));
  EXPECT_FALSE(EqualsIgnoringCase("a", "ab"));
  EXPECT_FALSE(EqualsIgnoringCase("@", "`"));
}

TEST(HttpTest, FindsTheFirstHeaderOfAName) {
  const HttpRequest request{.headers = {{"A", "1"}, {"Host", "x"}, {"a", "2"}}};
  ASSERT_NE(request.Header("a"), nullptr);
  EXPECT_EQ(*request.Header("a"), "1");
  EXPECT_EQ(*request.Header("HOST"), "x");
  EXPECT_EQ(request.Header("B"), nullptr);
  EXPECT_EQ(request.Header(""), nullptr);
}

TEST(HttpTest, PercentDecode) {
  EXPECT_EQ(PercentDecode(""), "");
  EXPECT_EQ(PercentDecode("a%2Fb%2fc+d"), "a/b/c+d");
  EXPECT_EQ(PercentDecode("%E4%00"), std::string("\xE4\0", 2));
  EXPECT_EQ(PercentDecode("%252F"), "%2F");
  for (const char* bad : {"%", "a%", "%2", "%2g", "%g2", "%-1", "%+1", "% 1", "%%", "%0x"}) {
    EXPECT_EQ(PercentDecode(bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace kvasir::server
