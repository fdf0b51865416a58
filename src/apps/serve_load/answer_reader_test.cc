#include "apps/serve_load/answer_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace kvasir::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Event(std::string_view data) { return "data: " + std::string(data) + "\n\n"; }

std::string Text(std::string_view text, std::string_view reason = "null") {
  return Event(R"({"choices":[{"index":0,"text":")" + std::string(text) + R"(","finish_reason":)" +
               std::string(reason) + "}]}");
}

std::string Delta(std::string_view delta, std::string_view reason = "null") {
  return Event(R"({"choices":[{"index":0,"delta":)" + std::string(delta) + R"(,"finish_reason":)" +
               std::string(reason) + "}]}");
}

const std::string kUsage = Event(
    R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}})");
const std::string kDone = Event("[DONE]");

TEST(AnswerReader, NotesWhenTheTextOfACompletionCame) {
  AnswerReader reader(ApiEndpoint::kCompletions);
  double at = 1;
  // An empty text is a token that is no whole character yet; one with a reason to end is none.
  for (const std::string& bytes : {Text("a"), Text(""), Text("b"), Text("", "\"length\""), kUsage, kDone}) {
    ASSERT_TRUE(reader.Feed(bytes, at).ok());
    at += 1;
  }
  ASSERT_TRUE(reader.End().ok());
  EXPECT_THAT(reader.answer().piece_s, ElementsAre(1, 2, 3));
  EXPECT_EQ(reader.answer().end_s, 6);
  EXPECT_EQ(reader.answer().prompt_tokens, 7);
  EXPECT_EQ(reader.answer().answer_tokens, 3);
  EXPECT_EQ(reader.answer().cached_tokens, 4);
  EXPECT_EQ(reader.answer().finish_reason, "length");
}

TEST(AnswerReader, WhatOpensOrEndsAChatIsNoPiece) {
  AnswerReader reader(ApiEndpoint::kChat);
  double at = 1;
  for (const std::string& bytes :
       {Delta(R"({"role":"assistant","content":""})"), Delta(R"({"role":"assistant","content":null})"),
        Delta(R"({"reasoning_content":"hm"})"), Delta(R"({"content":"a"})"), Delta(R"({"content":""})"),
        Delta(R"({"tool_calls":[{"index":0}]})"), Delta(R"({"role":"assistant","content":"b"})"),
        Delta(R"({"content":""})", "\"stop\""), Delta("{}", "\"stop\""), kDone}) {
    ASSERT_TRUE(reader.Feed(bytes, at).ok()) << bytes;
    at += 1;
  }
  EXPECT_THAT(reader.answer().piece_s, ElementsAre(3, 4, 5, 6, 7));
  EXPECT_EQ(reader.answer().prompt_tokens, -1);
  EXPECT_EQ(reader.answer().answer_tokens, -1);
}

TEST(AnswerReader, ABrokenStreamIsAnError) {
  const auto error = [](const std::string& bytes, ApiEndpoint endpoint = ApiEndpoint::kCompletions) {
    AnswerReader reader(endpoint);
    Status status = reader.Feed(bytes, 1);
    if (status.ok()) status = reader.End();
    EXPECT_FALSE(status.ok()) << bytes;
    return status;
  };
  for (const auto& [bytes, message] : {
           std::pair<std::string, std::string>{"", "without data: [DONE]"},
           {Text("a"), "without data: [DONE]"},
           {kDone + Text("a"), "behind data: [DONE]"},
           {kDone + "data: x", "middle of an event"},
           {Event("{"), "a chunk of the stream"},
           {Event("[]"), "no JSON object"},
           {Event("{}"), "no list of choices"},
           {Event(R"({"choices":[7]})"), "no JSON object"},
           {Event(R"({"choices":[{"text":null}]})"), "no text"},
           {Delta(R"({"content":"a"})"), "no text"},
           {Event(R"({"choices":[],"usage":{"prompt_tokens":-1}})"), "prompt_tokens"},
           {Event(R"({"choices":[],"usage":{"completion_tokens":1.5}})"), "completion_tokens"},
       }) {
    const Status status = error(bytes);
    EXPECT_EQ(status.code(), StatusCode::kInvalidData) << bytes;
    EXPECT_THAT(status.message(), HasSubstr(message)) << bytes;
  }
  EXPECT_THAT(error(Text("a"), ApiEndpoint::kChat).message(), HasSubstr("no delta"));
}

TEST(AnswerReader, TheServersErrorsAreItsOwn) {
  for (const std::string& bytes : {Event(R"({"error":{"message":"too much","code":400}})"),
                                   std::string("event: error\ndata: {\"message\":\"too much\"}\n\n")}) {
    AnswerReader reader(ApiEndpoint::kCompletions);
    ASSERT_TRUE(reader.Feed(Text("a"), 1).ok());
    const Status status = reader.Feed(bytes, 2);
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_EQ(status.message(), "too much");
    EXPECT_EQ(reader.answer().piece_s.size(), 1u);
  }
}

TEST(AnswerReader, StopsWhereTheClientHangsUp) {
  AnswerReader reader(ApiEndpoint::kCompletions);
  reader.StopAfter(2);
  EXPECT_TRUE(reader.Feed(Text("a"), 1).ok());
  EXPECT_EQ(reader.Feed(Text("b") + Text("c"), 2).code(), StatusCode::kCancelled);
  EXPECT_EQ(reader.answer().piece_s.size(), 2u);
}

TEST(ServerMessage, SaysWhatTheServerSaid) {
  EXPECT_EQ(ServerMessage(R"({"error":{"message":"no\nmodel"}})"), "no model");
  EXPECT_EQ(ServerMessage(R"({"error":"plain"})"), "plain");
  EXPECT_EQ(ServerMessage(R"({"detail":"Not Found"})"), "Not Found");
  EXPECT_EQ(ServerMessage("<html>\x1b[31m</html>"), "<html>^[[31m</html>");
  EXPECT_EQ(ServerMessage(""), "");
  EXPECT_LE(ServerMessage(std::string(100000, 'x')).size(), 200u);
}

}  // namespace
}  // namespace kvasir::apps
