#include "decode/stop.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

namespace kvasir {
namespace {

// What a person would see, and whether it stopped, pushing pieces of `size` bytes.
std::pair<std::string, bool> Watch(const std::vector<std::string>& strings, std::string_view text, size_t size) {
  StopStrings stop(strings);
  std::string seen;
  for (size_t i = 0; i < text.size(); i += size) {
    const auto output = stop.Push(text.substr(i, size));
    seen += output.text;
    if (output.stopped) return {seen, true};
  }
  return {seen + stop.Flush(), false};
}

// The obvious way: the first end of any stop string, the longest of those.
std::pair<std::string, bool> Naive(const std::vector<std::string>& strings, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const auto& s : strings) {
      if (!s.empty() && s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0) {
        longest = std::max(longest, s.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopStringsTest, StopsAndHoldsBack) {
  StopStrings stop({"END", "<|im_end|>"});
  EXPECT_EQ(stop.Push("hello E").text, "hello ");
  EXPECT_EQ(stop.Push("N").text, "");
  EXPECT_EQ(stop.Push("!").text, "EN!");
  EXPECT_EQ(stop.Push("a<|im_").text, "a");
  const auto output = stop.Push("end|>rest");
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "");
  EXPECT_TRUE(stop.Push("more").stopped);
  EXPECT_EQ(stop.Push("more").text, "");
  EXPECT_EQ(stop.Flush(), "");
}

TEST(StopStringsTest, FlushGivesBackWhatWasHeld) {
  StopStrings stop({"abcd"});
  EXPECT_EQ(stop.Push("xabc").text, "x");
  EXPECT_EQ(stop.Flush(), "abc");
  EXPECT_EQ(stop.Flush(), "");
  EXPECT_FALSE(stop.Push("d").stopped);
}

TEST(StopStringsTest, NoStringsLetEverythingThrough) {
  StopStrings stop({});
  EXPECT_EQ(stop.Push("abc").text, "abc");
  StopStrings empty({""});
  EXPECT_EQ(empty.Push("abc").text, "abc");
}

TEST(StopStringsTest, AgreesWithTheObviousWay) {
  std::mt19937 rng(1);
  for (int round = 0; round < 3000; ++round) {
    const auto random_string = [&](size_t max) {
      std::string s(rng() % (max + 1), 'a');
      for (char& c : s) c = static_cast<char>('a' + rng() % 2);
      return s;
    };
    std::vector<std::string> strings(1 + rng() % 4);
    for (auto& s : strings) s = random_string(8);
    const std::string text = random_string(60);
    const auto expected = Naive(strings, text);
    for (const size_t size : {1u, 2u, 5u, 100u}) EXPECT_EQ(Watch(strings, text, size), expected) << text;
  }
}

TEST(StopStringsTest, IsLinearInTheText) {
  // Quadratic or per-string work would take minutes here.
  std::vector<std::string> strings;
  for (size_t i = 0; i < 200; ++i) strings.push_back(std::string(2000 + i, 'a') + "b");
  StopStrings stop(strings);
  const auto begin = std::chrono::steady_clock::now();
  size_t shown = 0;
  for (int i = 0; i < 1'000'000; ++i) shown += stop.Push("a").text.size();
  EXPECT_EQ(shown + stop.Flush().size(), 1'000'000u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(FinishReasonTest, Names) {
  EXPECT_EQ(FinishReasonName(FinishReason::kEos), "stop");
  EXPECT_EQ(FinishReasonName(FinishReason::kStopString), "stop");
  EXPECT_EQ(FinishReasonName(FinishReason::kLength), "length");
  EXPECT_EQ(FinishReasonName(FinishReason::kNone), "");
}

}  // namespace
}  // namespace kvasir
