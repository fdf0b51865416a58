// Constraints against committed texts, against a validator of their own, and masks against single steps.
#include "decode/json_constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>
#include <chrono>
#include <map>
#include <random>

#include "base/test_paths.h"
#include "decode/json_testing.h"
#include "decode/json_validator.h"

namespace kvasir {
namespace {

using testing::Allows;
using testing::ForSchema;
using ::testing::HasSubstr;
using testing::Read;
using testing::Verdict;
using testing::Vocabulary;

std::string TextOf(const json::value& value) { return {value.get_string().data(), value.get_string().size()}; }

const json::array& Cases() {
  static const json::value kCases = [] {
    auto cases = ParseJsonFile(std::string(kFixtures) + "/schema/cases.json");
    EXPECT_TRUE(cases.ok()) << cases.status().message();
    return *std::move(cases);
  }();
  return kCases.get_array();
}

/// Tokens as vocabularies have them: words, punctuation that closes and opens several things, parts of characters.
std::shared_ptr<const TokenTrie> SomeTokens() {
  static const std::shared_ptr<const TokenTrie> kTokens =
      Vocabulary({"\":",  "\": ", "\",",      "\", \"", "\"}", "\"]",  "\"},",     "{\"",      " {\"", "[\"",  "[{\"",
                  "}]",   "}}",   "},",       "],",     ", ",  ",\n",  "{\n",      "  ",       "    ", "true", "false",
                  "null", "name", "\"name\"", "12",     "100", "-1",   "0.5",      ".5",       "e1",   "ab",   "abz",
                  "a\"",  "x\"}", "\\n",      "\\u00",  "é",   "世界", "\xe4\xb8", "\x9f\xf0", "𐀀",    "red",  "2024",
                  "-0",   "\\\"", "\"\"",     "[]",     "{}",  "[[",   "]]",       "abcdefgh"});
  return kTokens;
}

TEST(JsonConstraintTest, CommittedTextsAreAcceptedAndRefused) {
  ASSERT_GE(Cases().size(), 100u);
  size_t texts = 0;
  for (const json::value& item : Cases()) {
    const std::string schema = json::serialize(item.at("schema"));
    const auto constraint = ForSchema(schema);
    ASSERT_TRUE(constraint) << schema;
    for (const json::value& text : item.at("valid").get_array()) {
      EXPECT_GE(Read(*constraint, TextOf(text)), Verdict::kMayEnd) << schema << "\n" << TextOf(text);
    }
    for (const json::value& text : item.at("invalid").get_array()) {
      EXPECT_LT(Read(*constraint, TextOf(text)), Verdict::kMayEnd) << schema << "\n" << TextOf(text);
    }
    texts += item.at("valid").get_array().size() + item.at("invalid").get_array().size();
  }
  EXPECT_GE(texts, 2000u);
}

TEST(JsonConstraintTest, TheValidatorAgreesWithTheCommittedTexts) {
  for (const json::value& item : Cases()) {
    const testing::JsonValidator validator(item.at("schema"));
    for (const json::value& text : item.at("valid").get_array()) {
      const auto value = ParseJson(TextOf(text), "text");
      ASSERT_TRUE(value.ok());
      EXPECT_TRUE(validator.Satisfies(*value)) << json::serialize(item.at("schema")) << "\n" << TextOf(text);
    }
    for (const json::value& text : item.at("invalid").get_array()) {
      const auto value = ParseJson(TextOf(text), "text");
      EXPECT_FALSE(value.ok() && validator.Satisfies(*value)) << json::serialize(item.at("schema")) << "\n"
                                                              << TextOf(text);
    }
  }
}

/// A token at random; after a while one that closes something, so that the text ends.
TokenId Choose(std::span<const uint64_t> mask, const TokenTrie& tokens, bool close, std::mt19937& random) {
  std::vector<TokenId> allowed;
  for (TokenId id = 0; id < tokens.vocab_size(); ++id) {
    if (Allows(mask, id)) allowed.push_back(id);
  }
  if (close) {
    for (const TokenId id :
         {TokenId{'"'}, TokenId{'}'}, TokenId{']'}, TokenId{'n'}, TokenId{'x'}, TokenId{'z'}, TokenId{'0'}}) {
      if (Allows(mask, id)) return id;
    }
  }
  return allowed[random() % allowed.size()];
}

TEST(JsonConstraintTest, WhateverIsChosenSatisfiesTheSchema) {
  std::mt19937 random(1);
  const auto tokens = SomeTokens();
  size_t ended = 0;
  size_t walks = 0;
  for (const json::value& item : Cases()) {
    const testing::JsonValidator validator(item.at("schema"));
    const std::string schema = json::serialize(item.at("schema"));
    const auto constraint = ForSchema(schema, tokens);
    for (int walk = 0; walk < 4; ++walk, ++walks) {
      const size_t patience = random() % 60;
      Constraint::State state = constraint->Start();
      std::string text;
      for (size_t step = 0; step < 2000 && !constraint->MustEnd(state); ++step) {
        if (constraint->MayEnd(state) && step >= patience) break;
        const auto mask = constraint->Mask(state);
        ASSERT_TRUE(mask.ok()) << mask.status().message() << "\n" << schema << "\n" << text;
        const TokenId token = Choose(*mask, *tokens, step >= patience, random);
        text += constraint->Bytes(token);
        const auto next = constraint->Next(state, token);
        ASSERT_TRUE(next.ok()) << next.status().message();
        state = *next;
      }
      if (!constraint->MayEnd(state)) continue;  // a pattern without an end that is near
      const auto value = ParseJson(text, "text");
      if (!value.ok() && value.status().message().find("twice") != std::string::npos) continue;  // of its own names
      ASSERT_TRUE(value.ok()) << value.status().message() << "\n" << schema << "\n" << text;
      EXPECT_TRUE(validator.Satisfies(*value)) << schema << "\n" << text;
      ++ended;
    }
  }
  EXPECT_GE(ended * 100, walks * 95) << walks;
}

TEST(JsonConstraintTest, MasksAreWhatSingleStepsAllow) {
  std::mt19937 random(2);
  const auto tokens = SomeTokens();
  for (size_t i = 0; i < Cases().size(); i += 3) {
    const std::string schema = json::serialize(Cases()[i].at("schema"));
    const auto constraint = ForSchema(schema, tokens);
    const auto by_bytes = ForSchema(schema);  // has single bytes only, so that no trie is walked
    Constraint::State state = constraint->Start();
    Constraint::State byte_state = by_bytes->Start();
    const auto follow = [&](std::string_view bytes) -> std::optional<Constraint::State> {
      Constraint::State at = byte_state;
      for (const char c : bytes) {
        const auto next = by_bytes->Next(at, static_cast<uint8_t>(c));
        if (!next.ok()) return std::nullopt;
        at = *next;
      }
      return at;
    };
    std::string text;
    for (int step = 0; step < 40 && !constraint->MustEnd(state); ++step) {
      const auto mask = constraint->Mask(state);
      ASSERT_TRUE(mask.ok()) << mask.status().message();
      for (TokenId id = 0; id < tokens->vocab_size(); ++id) {
        ASSERT_EQ(Allows(*mask, id), follow(tokens->Bytes(id)).has_value()) << schema << "\n"
                                                                            << text << "\n"
                                                                            << tokens->Bytes(id);
      }
      const TokenId token = Choose(*mask, *tokens, step > 25, random);
      text += tokens->Bytes(token);
      byte_state = *follow(tokens->Bytes(token));
      state = *constraint->Next(state, token);
      ASSERT_EQ(constraint->MayEnd(state), by_bytes->MayEnd(byte_state));
      ASSERT_EQ(constraint->MustEnd(state), by_bytes->MustEnd(byte_state));
    }
  }
}

TEST(JsonConstraintTest, StatesStayWhatTheyAre) {
  const auto constraint = ForSchema(R"({"type":"array","items":{"type":"string","maxLength":40},"maxItems":30})");
  std::map<Constraint::State, std::vector<uint64_t>> masks;
  std::mt19937 random(3);
  std::vector<Constraint::State> states{constraint->Start()};
  for (int i = 0; i < 2000; ++i) {
    // Back and forth, as beams and trees go.
    const Constraint::State state = random() % 3 > 0 ? states.back() : states[random() % states.size()];
    if (constraint->MustEnd(state)) continue;
    const auto mask = constraint->Mask(state);
    ASSERT_TRUE(mask.ok());
    const std::vector<uint64_t> words(mask->begin(), mask->end());
    const auto [known, added] = masks.try_emplace(state, words);
    EXPECT_EQ(known->second, words);
    states.push_back(*constraint->Next(state, Choose(*mask, *Vocabulary(), false, random)));
  }
  EXPECT_GT(masks.size(), 100u);  // more than are kept
}

TEST(JsonConstraintTest, AVocabularyThatCannotGoOnIsAnError) {
  auto letters = TokenTrie::Make({"{", "\"", "a", ""});
  ASSERT_TRUE(letters.ok());
  const auto constraint = ForSchema(R"({"type":"object","properties":{"a":{}},"required":["a"]})", *letters);
  Constraint::State state = constraint->Start();
  for (const TokenId token : {0, 1, 2, 1}) {
    const auto mask = constraint->Mask(state);
    ASSERT_TRUE(mask.ok());
    EXPECT_TRUE(Allows(*mask, token));
    EXPECT_FALSE(Allows(*mask, 3));  // says nothing, and would for ever
    state = *constraint->Next(state, token);
  }
  const auto mask = constraint->Mask(state);  // no colon
  ASSERT_FALSE(mask.ok());
  EXPECT_EQ(mask.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(mask.status().message(), HasSubstr("vocabulary has no token"));
  EXPECT_EQ(constraint->Next(state, 2).status().code(), StatusCode::kInternal);
  EXPECT_EQ(constraint->Next(state, 3).status().code(), StatusCode::kInternal);
  EXPECT_EQ(constraint->Next(state, 99).status().code(), StatusCode::kInternal);
}

TEST(JsonConstraintTest, MasksThatWouldTakeTooLongAreAnError) {
  // Every word of a large vocabulary leads each of the patterns somewhere else.
  std::vector<std::string> words;
  std::mt19937 random(5);
  for (int i = 0; i < 60'000; ++i) {
    std::string word;
    for (int k = 0; k < 12; ++k) word += static_cast<char>('a' + random() % 26);
    words.push_back(word);
  }
  std::string schema = R"({"anyOf":[)";
  for (int i = 0; i < 400; ++i) {
    schema += fmt::format(R"({}{{"type":"string","pattern":"^([a-{}]{{{},}}|[^{}]*{})$"}})", i == 0 ? "" : ",",
                          static_cast<char>('b' + i % 24), 1 + i % 17, static_cast<char>('a' + i % 26), i);
  }
  const auto constraint = ForSchema(schema + "]}", Vocabulary(words));
  ASSERT_TRUE(constraint);
  const Constraint::State state = *constraint->Next(constraint->Start(), '"');
  const auto start = std::chrono::steady_clock::now();
  const auto mask = constraint->Mask(state);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
  ASSERT_FALSE(mask.ok());
  EXPECT_EQ(mask.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(mask.status().message(), HasSubstr("takes too long"));
}

TEST(JsonConstraintTest, LongTextsWithBoundsHaveRoom) {
  const auto tokens = SomeTokens();
  const auto constraint =
      ForSchema(R"({"type":"array","maxItems":100000,"items":{"type":"object","properties":{"name":{"type":"string",)"
                R"("maxLength":200},"n":{"type":"integer"}},"required":["name","n"]}})",
                tokens);
  Constraint::State state = *constraint->Next(constraint->Start(), '[');
  const std::string item = R"({"name":"abz x","n":12},)";
  for (int i = 0; i < 5000; ++i) {
    for (const char c : item) {
      const auto mask = constraint->Mask(state);
      ASSERT_TRUE(mask.ok()) << i << " " << mask.status().message();
      ASSERT_TRUE(Allows(*mask, static_cast<uint8_t>(c)));
      const auto next = constraint->Next(state, static_cast<uint8_t>(c));
      ASSERT_TRUE(next.ok()) << i << " " << next.status().message();
      state = *next;
    }
  }
}

TEST(JsonConstraintTest, AStringNearItsLongestLengthAllowsWhatStillFits) {
  const auto tokens = SomeTokens();
  const auto constraint = ForSchema(R"({"type":"string","minLength":2,"maxLength":4})", tokens);
  const auto after = [&](std::string_view text) {
    Constraint::State state = constraint->Start();
    for (const char c : text) state = *constraint->Next(state, static_cast<uint8_t>(c));
    const auto mask = constraint->Mask(state);
    EXPECT_TRUE(mask.ok());
    std::string allowed;
    for (TokenId id = 256; id < tokens->vocab_size(); ++id) {
      const std::string_view bytes = tokens->Bytes(id);
      if (Allows(*mask, id) && bytes.find_first_not_of("abcdefghxz\"") == std::string_view::npos) {
        allowed += std::string(bytes) + " ";
      }
    }
    return allowed + (Allows(*mask, '"') ? "end" : "");
  };
  EXPECT_EQ(after("\""), "ab abz ");
  EXPECT_EQ(after("\"x"), "ab abz a\" ");
  EXPECT_EQ(after("\"xx"), "ab a\" end");
  EXPECT_EQ(after("\"xxx"), "a\" end");
  EXPECT_EQ(after("\"xxxx"), "end");
}

}  // namespace
}  // namespace kvasir
