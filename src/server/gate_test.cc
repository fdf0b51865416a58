#include "server/gate.h"

#include <gtest/gtest.h>

#include <set>

namespace kvasir::server {
namespace {

constexpr char kTrace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

HttpRequest Request(Headers headers, std::string path = "/v1/models", std::string method = "GET") {
  return {.method = std::move(method), .path = std::move(path), .headers = std::move(headers)};
}

/// The status of the refusal; 0: let in.
int StatusOf(const Gate& gate, HttpRequest request) {
  const auto refusal = gate.Check(request);
  return refusal ? refusal->status : 0;
}

const std::string* Find(const Headers& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (key == name) return &value;
  }
  return nullptr;
}

TEST(GateTest, HostName) {
  EXPECT_EQ(HostName("127.0.0.1:8080"), "127.0.0.1");
  EXPECT_EQ(HostName("Example.ORG"), "example.org");
  EXPECT_EQ(HostName("[::1]:8080"), "::1");
  EXPECT_EQ(HostName("[FE80::1]"), "fe80::1");
  EXPECT_EQ(HostName("a:"), "a");
  EXPECT_EQ(HostName(""), "");
  for (const char* bad : {"[::1", "[::1]x", "[::1].evil.example", "[::1]:x", "a:b", "a:1:2", "::1", "a:1x", "[::1]]"}) {
    EXPECT_EQ(HostName(bad), std::nullopt) << bad;
  }
}

TEST(GateTest, ValidTraceparent) {
  EXPECT_TRUE(ValidTraceparent(kTrace));
  const std::string good = kTrace;
  EXPECT_FALSE(ValidTraceparent(""));
  EXPECT_FALSE(ValidTraceparent(good + "-"));
  EXPECT_FALSE(ValidTraceparent(good.substr(0, 54)));
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char wrong : {'g', 'A', ' ', '\n', '_', '\0'}) {
      std::string changed = good;
      changed[i] = wrong;
      EXPECT_FALSE(ValidTraceparent(changed)) << changed;
    }
  }
  EXPECT_FALSE(ValidTraceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
  EXPECT_FALSE(ValidTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
}

TEST(GateTest, RandomIds) {
  std::set<std::string> ids;
  for (int i = 0; i < 100; ++i) ids.insert(RandomId());
  EXPECT_EQ(ids.size(), 100u);
  for (const std::string& id : ids) {
    EXPECT_EQ(id.size(), 32u);
    EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), id.npos);
  }
}

TEST(GateTest, HostsOfThisMachineAndThoseAllowed) {
  const Gate gate({.allowed_hosts = {"Models.Example"}});
  for (const char* good :
       {"localhost", "a.localhost:1", "10.0.0.1", "[::1]:80", "models.example", "MODELS.example:443"}) {
    EXPECT_EQ(StatusOf(gate, Request({{"Host", good}})), 0) << good;
  }
  for (const char* bad : {"evil.example", "xlocalhost", "", ".", "[::1]x", "models.example.", "localhost\n"}) {
    EXPECT_EQ(StatusOf(gate, Request({{"Host", bad}})), 403) << bad;
  }
  EXPECT_EQ(StatusOf(gate, Request({{"Host", "localhost"}, {"host", "localhost"}})), 400);
  EXPECT_EQ(StatusOf(gate, Request({})), 0);  // HTTP/1.0; whether it is has been asked before
  EXPECT_EQ(StatusOf(Gate({.allowed_hosts = {"*"}}), Request({{"Host", "any.example"}})), 0);
  EXPECT_EQ(StatusOf(Gate({.allowed_hosts = {"*"}}), Request({{"Host", "a:b"}})), 403);
}

TEST(GateTest, TargetsThatAreNoPath) {
  const Gate gate({});
  for (const char* target : {"", "health", "http://localhost/health", "localhost:80", "**"}) {
    EXPECT_EQ(StatusOf(gate, Request({{"Host", "localhost"}}, target)), 400) << target;
  }
  EXPECT_EQ(StatusOf(gate, Request({{"Host", "localhost"}}, "*", "OPTIONS")), 0);
}

TEST(GateTest, Origins) {
  const Gate gate({.cors_origins = {"https://chat.example"}});
  const auto status = [&](std::string origin, std::string host = "localhost:8080") {
    return StatusOf(gate, Request({{"Host", std::move(host)}, {"Origin", std::move(origin)}}));
  };
  EXPECT_EQ(status("http://localhost:8080"), 0);
  EXPECT_EQ(status("https://LOCALHOST:8080"), 0);
  EXPECT_EQ(status("https://chat.example"), 0);
  for (const char* bad : {"http://localhost", "http://localhost:80801", "ftp://localhost:8080", "null", "", "http://",
                          "https://chat.example/", "https://Chat.example"}) {
    EXPECT_EQ(status(bad), 403) << bad;
  }
  EXPECT_EQ(StatusOf(gate, Request({{"Origin", "http://"}})), 403);  // no Host, which would be as empty
  HttpRequest allowed = Request({{"Host", "localhost"}, {"Origin", "https://chat.example"}});
  EXPECT_FALSE(gate.Check(allowed));
  ASSERT_NE(Find(allowed.reply_headers, "Access-Control-Allow-Origin"), nullptr);
  EXPECT_EQ(*Find(allowed.reply_headers, "Access-Control-Allow-Origin"), "https://chat.example");
  EXPECT_EQ(*Find(allowed.reply_headers, "Vary"), "Origin");
}

TEST(GateTest, Preflight) {
  const Gate gate({.api_keys = {"key"}, .cors_origins = {"*"}});
  const auto ask = [&](std::string wanted) {
    HttpRequest request = Request({{"Host", "localhost"},
                                   {"Origin", "https://chat.example"},
                                   {"Access-Control-Request-Method", "POST"},
                                   {"Access-Control-Request-Headers", std::move(wanted)}},
                                  "/v1/models", "OPTIONS");
    return *gate.Check(request);
  };
  const HttpResponse good = ask("authorization, x-a_b");
  EXPECT_EQ(good.status, 204);
  ASSERT_NE(Find(good.headers, "Access-Control-Allow-Headers"), nullptr);
  EXPECT_EQ(*Find(good.headers, "Access-Control-Allow-Headers"), "authorization, x-a_b");
  EXPECT_EQ(Find(ask("a\r\nSet-Cookie: b").headers, "Access-Control-Allow-Headers"), nullptr);
  EXPECT_EQ(StatusOf(gate, Request({{"Host", "localhost"}, {"Origin", "https://a.example"}}, "/v1/models", "OPTIONS")),
            401);
}

TEST(GateTest, Keys) {
  const Gate gate({.api_keys = {"one", "two"}});
  const auto status = [&](Headers headers, std::string path = "/v1/models", std::string method = "GET") {
    headers.emplace_back("Host", "localhost");
    return StatusOf(gate, Request(std::move(headers), std::move(path), std::move(method)));
  };
  EXPECT_EQ(status({{"Authorization", "Bearer one"}}), 0);
  EXPECT_EQ(status({{"authorization", "BEARER two"}}), 0);
  EXPECT_EQ(status({{"x-api-key", "two"}}), 0);
  for (const char* bad : {"", "one", "Bearer", "Bearer ", "Bearer on", "Bearer one ", "Bearer onetwo", "Basic one",
                          "Bearer\tone", "Bearer One"}) {
    EXPECT_EQ(status({{"Authorization", bad}}), 401) << bad;
  }
  EXPECT_EQ(status({}), 401);
  EXPECT_EQ(status({{"Authorization", "Bearer no"}, {"X-Api-Key", "one"}}), 401);
  EXPECT_EQ(status({{"Authorization", "Bearer one"}, {"Authorization", "Bearer one"}}), 401);
  EXPECT_EQ(status({{"X-Api-Key", "one"}, {"X-Api-Key", "no"}}), 401);
  for (const char* path : {"/", "/health"}) {
    EXPECT_EQ(status({}, path), 0);
    EXPECT_EQ(status({}, path, "HEAD"), 0);
    EXPECT_EQ(status({}, path, "POST"), 401);
  }
  for (const char* path : {"//", "/health/", "/Health", "/metrics", "/%2e", "*"}) EXPECT_EQ(status({}, path), 401);
}

TEST(GateTest, KeysHaveNamesThatGiveNothingAway) {
  const Gate gate({.api_keys = {"one", "two"}});
  const auto name = [&](const char* key) {
    HttpRequest request = Request({{"Host", "localhost"}, {"X-Api-Key", key}});
    gate.Check(request);
    return request.key_name;
  };
  EXPECT_EQ(name("one"), name("one"));
  EXPECT_NE(name("one"), name("two"));
  EXPECT_EQ(name("one").size(), 16u);
  EXPECT_EQ(name("no"), "");
}

TEST(GateTest, IdsAndTracesComeBackWhereTheyAreHarmless) {
  const Gate gate({});
  const auto checked = [&](const char* id, const char* trace) {
    HttpRequest request = Request({{"Host", "localhost"}, {"X-Request-Id", id}, {"Traceparent", trace}});
    gate.Check(request);
    return request;
  };
  const HttpRequest good = checked("a-B_9.z", kTrace);
  EXPECT_EQ(good.id, "a-B_9.z");
  EXPECT_EQ(good.traceparent, kTrace);
  EXPECT_EQ(*Find(good.reply_headers, "X-Request-Id"), "a-B_9.z");
  EXPECT_EQ(*Find(good.reply_headers, "traceparent"), kTrace);
  for (const char* bad : {"", "a b", "a\r\nb", "a:b", "\xC3\xA4"}) {
    const HttpRequest request = checked(bad, bad);
    EXPECT_EQ(request.id.size(), 32u) << bad;
    EXPECT_EQ(request.traceparent, "");
    EXPECT_EQ(Find(request.reply_headers, "traceparent"), nullptr);
  }
  EXPECT_EQ(checked(std::string(129, 'a').c_str(), "").id.size(), 32u);
}

}  // namespace
}  // namespace kvasir::server
