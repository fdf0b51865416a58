#include "server/http.h"

#include <gtest/gtest.h>

namespace kvasir::server {
namespace {

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
