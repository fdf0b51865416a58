#include "apps/model_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace kvasir::apps {
namespace {

using ::testing::HasSubstr;

TEST(CacheFlag, EveryPolicyIsReadAndShownAlike) {
  for (const char* text : {"none", "dynamic", "static", "window:256", "window:1", "recompute:32", "sink:4,256"}) {
    const auto policy = ParseCachePolicy(text);
    ASSERT_TRUE(policy.ok()) << policy.status().message();
    EXPECT_EQ(policy->Text(), text);
  }
  const auto sink = ParseCachePolicy("sink:4,256");
  EXPECT_EQ(sink->mode, CacheMode::kSink);
  EXPECT_EQ(sink->bound.sinks, 4);
  EXPECT_EQ(sink->bound.tokens, 256);
}

TEST(CacheFlag, WrongPoliciesAreNamed) {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {{"", "is none of none|dynamic|static"},
               {"paged", "sink:S,L"},
               {"Sink:4,256", "is none of"},
               {"dynamic:7", "dynamic has no size"},
               {"none:", "none has no size"},
               {"window", "write window:L, such as window:256"},
               {"window:", "write window:L"},
               {"window:4,256", "write window:L"},
               {"recompute:4,256", "write recompute:L"},
               {"sink", "write sink:S,L, such as sink:4,256"},
               {"sink:256", "write sink:S,L"},
               {"window:0", "window:0"},
               {"recompute:0", "recompute:0"},
               {"window:-3", "-3"},
               {"window:x", "\"x\""},
               {"window:99999999999999999999", "window:99999999999999999999"},
               {"sink:0,256", "without them it is window:256"},
               {"sink:4,4", "5 or more"},
               {"sink:300,256", "301 or more"},
               {"sink:4,256,1", "256,1"},
               {"sink:,256", "sink:,256"},
               {"sink:4,", "sink:4,"}};
  for (const auto& c : cases) {
    const auto policy = ParseCachePolicy(c.text);
    ASSERT_FALSE(policy.ok()) << c.text;
    EXPECT_EQ(policy.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(policy.status().message(), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace kvasir::apps
