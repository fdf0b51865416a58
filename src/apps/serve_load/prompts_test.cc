#include "apps/serve_load/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

#include <algorithm>
#include <set>

namespace kvasir::apps {
namespace {

using ::testing::HasSubstr;

TEST(Prompts, IdsAreOfTheLengthAskedForAndOfTheVocabulary) {
  const PromptStuff stuff{.seed = 1, .vocabulary = 100};
  const auto ids = PromptIds(stuff, {.index = 4, .prompt_tokens = 5000});
  ASSERT_EQ(ids.size(), 5000u);
  EXPECT_EQ(*std::ranges::min_element(ids), 25);
  EXPECT_EQ(*std::ranges::max_element(ids), 99);
  EXPECT_EQ(ids, PromptIds(stuff, {.index = 4, .prompt_tokens = 5000}));
  EXPECT_NE(ids, PromptIds(stuff, {.index = 5, .prompt_tokens = 5000}));
  EXPECT_NE(ids, PromptIds({.seed = 2, .vocabulary = 100}, {.index = 4, .prompt_tokens = 5000}));
}

TEST(Prompts, AllBeginWithTheSharedPrefixAndThenDiffer) {
  PromptStuff stuff{.seed = 9, .shared_prefix = 50};
  const auto a = PromptIds(stuff, {.index = 0, .prompt_tokens = 60});
  const auto b = PromptIds(stuff, {.index = 1, .prompt_tokens = 80});
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 50, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 50, a.end(), b.begin() + 50));
  stuff.ids = false;
  stuff.words = {"a", "b", "c", "d"};
  const std::string text = PromptText(stuff, {.index = 0, .prompt_tokens = 60});
  EXPECT_EQ(text.substr(0, 99), PromptText(stuff, {.index = 1, .prompt_tokens = 80}).substr(0, 99));
}

TEST(Prompts, WordsAreSoManyAsTokensAreLeft) {
  PromptStuff stuff{.ids = false, .overhead = 3, .words = {"one", "two"}};
  const auto words = [&](int64_t tokens) {
    const std::string text = PromptText(stuff, {.prompt_tokens = tokens});
    return 1 + std::ranges::count(text, ' ');
  };
  EXPECT_EQ(words(10), 7);
  EXPECT_EQ(words(2), 1);
  const std::set<std::string_view> different(CommonWords().begin(), CommonWords().end());
  EXPECT_EQ(different.size(), CommonWords().size());
}

TEST(RequestBody, AsksForAStreamWithItsUsage) {
  const PromptStuff stuff{.vocabulary = 8};
  const LoadRequest request{.prompt_tokens = 3, .answer_tokens = 5};
  AskSettings ask{.model = "a \"model\""};
  auto body = boost::json::parse(*RequestBody(ask, stuff, request));
  EXPECT_EQ(body.at("model").as_string(), "a \"model\"");
  EXPECT_EQ(body.at("prompt").as_array().size(), 3u);
  EXPECT_EQ(body.at("max_tokens").as_int64(), 5);
  EXPECT_TRUE(body.at("stream").as_bool());
  EXPECT_TRUE(body.at("stream_options").at("include_usage").as_bool());
  EXPECT_TRUE(body.at("ignore_eos").as_bool());

  ask.endpoint = ApiEndpoint::kChat;
  ask.ignore_eos = false;
  ask.extra = R"({"max_tokens":9,"cache_salt":"x"})";
  body = boost::json::parse(*RequestBody(ask, {.ids = false, .words = {"hm"}}, request));
  EXPECT_EQ(body.at("messages").at(0).at("content").as_string(), "hm hm hm");
  EXPECT_FALSE(body.as_object().contains("prompt"));
  EXPECT_FALSE(body.as_object().contains("ignore_eos"));
  EXPECT_EQ(body.at("max_tokens").as_int64(), 9);
  EXPECT_EQ(body.at("cache_salt").as_string(), "x");

  ask.endpoint = ApiEndpoint::kCompletions;
  ask.extra = "[1]";
  EXPECT_THAT(RequestBody(ask, stuff, request).status().message(), HasSubstr("no JSON object"));
  ask.extra = "{";
  EXPECT_THAT(RequestBody(ask, stuff, request).status().message(), HasSubstr("--extra-body"));
}

}  // namespace
}  // namespace kvasir::apps
