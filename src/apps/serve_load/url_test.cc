#include "apps/serve_load/url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvasir::apps {
namespace {

using ::testing::HasSubstr;

TEST(ServerUrl, Parts) {
  const auto parts = [](std::string_view text) {
    const auto url = ParseServerUrl(text);
    if (!url.ok()) return url.status().message();
    return url->host + " " + url->port + " " + url->base + " " + url->Authority();
  };
  EXPECT_EQ(parts("http://127.0.0.1:8080"), "127.0.0.1 8080  127.0.0.1:8080");
  EXPECT_EQ(parts("http://localhost"), "localhost 80  localhost");
  EXPECT_EQ(parts("http://a-b.example:80"), "a-b.example 80  a-b.example");
  EXPECT_EQ(parts("http://[::1]:8080/v1/"), "::1 8080  [::1]:8080");
  EXPECT_EQ(parts("http://[fe80::1]"), "fe80::1 80  [fe80::1]");
  EXPECT_EQ(parts("http://h:1/some/folder/v1"), "h 1 /some/folder h:1");
  EXPECT_EQ(ParseServerUrl("http://[::1]:8080/x/")->Text(), "http://[::1]:8080/x");
}

TEST(ServerUrl, WhatIsNoAddress) {
  for (const auto& [text, message] : {
           std::pair<std::string, std::string>{"", "does not begin with http://"},
           {"127.0.0.1:8080", "does not begin"},
           {"https://h", "forward a local port"},
           {"ftp://h", "does not begin"},
           {"http://", "names no host"},
           {"http://:80", "names no host"},
           {"http://user@h", "names no host"},
           {"http://a b", "names no host"},
           {"http://h:0", "no port"},
           {"http://h:65536", "no port"},
           {"http://h:", "no port"},
           {"http://[::1", "bracket"},
           {"http://[127.0.0.1]", "IPv6"},
           {"http://[::1]8080", "no port"},
           {"http://h/a?b", "characters"},
           {"http://h/a#b", "characters"},
           {"http://h/a\r\nX: y", "characters"},
           {"http://h\r\n", "names no host"},
           {"http://" + std::string(3000, 'a'), "too long"},
       }) {
    const auto url = ParseServerUrl(text);
    ASSERT_FALSE(url.ok()) << text;
    EXPECT_THAT(url.status().message(), HasSubstr(message)) << text;
    EXPECT_EQ(url.status().message().find('\r'), std::string::npos);
  }
}

}  // namespace
}  // namespace kvasir::apps
