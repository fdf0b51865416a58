#include "apps/model_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace kvasir::apps {
namespace {

using ::testing::HasSubstr;

TEST(CacheFlag, EveryPolicyIsReadAndShownAlike) {
  for (const char* text : {"none", "dynamic", "static", "paged", "paged:16", "paged:1024", "window:256", "window:1",
                           "recompute:32", "sink:4,256"}) {
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
               {"pages", "sink:S,L"},
               {"paged:", "write paged:N, such as paged:64"},
               {"paged:0", "\"paged:0\": 0 is out of range (16 … 1024)"},
               {"paged:17", "paged:17: N, the tokens of a block, is a multiple of 16 up to 1024"},
               {"paged:-32", "-32"},
               {"paged:32,64", "write paged:N"},
               {"paged:x", "\"x\""},
               {"paged:1000000000", "1000000000 is out of range (16 … 1024)"},
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

TEST(AttentionFlag, ParsesEveryKindAndSaysItAgain) {
  const std::pair<const char*, AttentionMode> cases[] = {
      {"flash", {}},
      {"plain", {.plain = true}},
      {"local:1", {.pattern = AttentionPattern::kLocal, .k = 1}},
      {"atrous:64", {.pattern = AttentionPattern::kAtrous, .k = 64}},
      {"sparse:1073741824", {.pattern = AttentionPattern::kSparse, .k = kMaxPatternK}},
      {"sparse:32,alternate", {.pattern = AttentionPattern::kAlternating, .k = 32}},
  };
  for (const auto& [text, mode] : cases) {
    ModelFlags flags;
    FlagTable table;
    flags.AddAttention(table);
    const std::string args[] = {"--attention", text};
    ASSERT_TRUE(ParseFlags(table, args).ok()) << text;
    EXPECT_EQ(flags.Options().attention, mode) << text;
    EXPECT_EQ(AttentionText(flags.attention), text);
  }
}

TEST(AttentionFlag, RefusesTheRestAndSaysWhy) {
  const std::pair<const char*, const char*> cases[] = {
      {"local:0", "local: 0 is out of range (1 … 1073741824)"},
      {"sparse:-3", "sparse: -3 is out of range"},
      {"atrous:1073741825", "out of range"},
      {"atrous:99999999999999999999", "out of range"},
      {"atrous:x", "atrous: \"x\" is not a whole number"},
      {"atrous:8,alternate", "not a whole number"},
      {"sparse:,alternate", "\"\" is not a whole number"},
      {"sparse:8,alternating", "not a whole number"},
      {"local", "\"local\" needs a distance, as in local:64"},
      {"local:", "\"\" is not a whole number"},
      {"", "is none of plain, flash, local:K"},
      {"flash:3", "\"flash:3\" is none of"},
      {"strided:4", "\"strided:4\" is none of plain, flash, local:K, atrous:K, sparse:K and sparse:K,alternate"},
  };
  for (const auto& [text, message] : cases) {
    const auto mode = ParseAttention(text);
    ASSERT_EQ(mode.status().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(mode.status().message(), HasSubstr(message));
  }
}

}  // namespace
}  // namespace kvasir::apps
