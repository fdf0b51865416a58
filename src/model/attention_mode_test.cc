#include "model/attention_mode.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

void ExpectPattern(const AttentionMode& mode, int64_t layer, int64_t window, const LayerPattern& expected) {
  const LayerPattern pattern = PatternOf(mode, layer, window);
  EXPECT_EQ(pattern.window, expected.window);
  EXPECT_EQ(pattern.stride, expected.stride);
  EXPECT_EQ(pattern.local, expected.local);
}

TEST(AttentionMode, LayersSeeThePatternWithinTheirOwnWindow) {
  for (int64_t layer : {0, 1}) {
    ExpectPattern({}, layer, 0, {});
    ExpectPattern({}, layer, 40, {.window = 40});
    ExpectPattern({.plain = true}, layer, 40, {.window = 40});
    const AttentionMode local = {.pattern = AttentionPattern::kLocal, .k = 10};
    ExpectPattern(local, layer, 0, {.window = 11});
    ExpectPattern(local, layer, 40, {.window = 11});
    ExpectPattern(local, layer, 5, {.window = 5});
    ExpectPattern({.pattern = AttentionPattern::kAtrous, .k = 10}, layer, 40, {.window = 40, .stride = 10});
    ExpectPattern({.pattern = AttentionPattern::kSparse, .k = 10}, layer, 0, {.stride = 10, .local = 10});
  }
  const AttentionMode alternating = {.pattern = AttentionPattern::kAlternating, .k = 10};
  ExpectPattern(alternating, 0, 0, {.window = 11});
  ExpectPattern(alternating, 1, 0, {.stride = 10});
  ExpectPattern(alternating, 2, 6, {.window = 6});
  ExpectPattern(alternating, 3, 6, {.window = 6, .stride = 10});
}

}  // namespace
}  // namespace kvasir
