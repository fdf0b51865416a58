#include "server/completion_reply.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/test_paths.h"
#include "io/json.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

const Tokenizer& DemoTokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    auto loaded = LoadTokenizer(std::filesystem::path(kSourceTree) / "models/demo");
    EXPECT_TRUE(loaded.ok());
    return *std::move(loaded);
  }();
  return *tokenizer;
}

TokenId IdOf(std::string_view piece) { return *DemoTokenizer().PieceToId(piece); }

CompletionCall Call(int32_t n = 1, size_t prompts = 1) {
  CompletionCall call;
  call.stream = true;
  call.model = "m";
  call.prompts.resize(prompts);
  for (GenerationRequest& prompt : call.prompts) {
    prompt.prompt = {IdOf("a"), IdOf("b")};
    prompt.n = n;
  }
  return call;
}

StreamEvent Text(std::string text, int32_t choice = 0) {
  return {.choice = choice, .text = std::move(text), .token = IdOf("x"), .logprob = -0.5f};
}
StreamEvent End(FinishReason finish, int32_t choice = 0) { return {.choice = choice, .finish = finish}; }

/// Objects of a stream's events; "[DONE]" as a string.
std::vector<json::value> Events(std::string_view text) {
  std::vector<json::value> events;
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    EXPECT_TRUE(text.starts_with("data: "));
    const std::string_view data = text.substr(6, end - 6);
    events.push_back(data == "[DONE]" ? json::value("[DONE]") : *ParseJson(data, "event"));
    text.remove_prefix(end + 2);
  }
  return events;
}

json::object ChoiceOf(const json::value& event) { return event.at("choices").as_array().at(0).as_object(); }
json::value Parsed(const std::string& text) { return *ParseJson(text, "answer"); }

TEST(CompletionReplyTest, ChunksOfAChat) {
  CompletionCall call = Call(2);
  CompletionReply reply(Dialect::kChat, call, &DemoTokenizer());
  const auto first = Events(reply.First());
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[1].at("object"), "chat.completion.chunk");
  EXPECT_EQ(json::serialize(ChoiceOf(first[1])),
            R"({"index":1,"logprobs":null,"finish_reason":null,"delta":{"role":"assistant","content":""}})");
  EXPECT_EQ(json::serialize(ChoiceOf(Events(reply.Take(Text("hi", 1))).at(0)).at("delta")), R"({"content":"hi"})");
  EXPECT_EQ(reply.Take(Text("")), "");  // a part of a character, or of a stop string
  const auto last = Events(reply.Take(End(FinishReason::kLength)));
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(json::serialize(ChoiceOf(last[0])), R"({"index":0,"logprobs":null,"finish_reason":"length","delta":{}})");
  StreamEvent both = Text("end");
  both.finish = FinishReason::kStopString;
  const auto two = Events(reply.Take(both));
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(ChoiceOf(two[0]).at("finish_reason"), nullptr);
  EXPECT_EQ(ChoiceOf(two[1]).at("finish_reason"), "stop");
}

TEST(CompletionReplyTest, UsageOfAStreamOnlyWhereItWasAskedFor) {
  CompletionCall call = Call();
  const CompletionUsage usage{.prompt_tokens = 3, .cached_tokens = 1, .completion_tokens = 2};
  {
    CompletionReply reply(Dialect::kText, call, &DemoTokenizer());
    EXPECT_EQ(reply.Last(usage), "data: [DONE]\n\n");
    EXPECT_EQ(reply.Take(Text("a")).find("usage"), std::string::npos);
  }
  call.include_usage = true;
  CompletionReply reply(Dialect::kText, call, &DemoTokenizer());
  EXPECT_EQ(Events(reply.Take(Text("a"))).at(0).at("usage"), nullptr);
  const auto last = Events(reply.Last(usage));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_TRUE(last[0].at("choices").as_array().empty());
  EXPECT_EQ(
      json::serialize(last[0].at("usage")),
      R"({"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}})");
  EXPECT_EQ(last[1], "[DONE]");
}

TEST(CompletionReplyTest, AWholeAnswerIsWhatWasTaken) {
  const CompletionCall call = Call(2, 2);
  CompletionReply reply(Dialect::kChat, call, &DemoTokenizer());
  for (const char* part : {"one ", "two"}) reply.Take(Text(part, 3));
  reply.Take(Text("other", 0));
  for (int32_t i = 0; i < 4; ++i) reply.Take(End(FinishReason::kEos, i));
  const json::value answer = Parsed(reply.Whole({}));
  EXPECT_EQ(answer.at("object"), "chat.completion");
  EXPECT_TRUE(std::string_view(answer.at("id").as_string()).starts_with("chatcmpl-"));
  ASSERT_EQ(answer.at("choices").as_array().size(), 4u);
  EXPECT_EQ(answer.at_pointer("/choices/3/message/content"), "one two");
  EXPECT_EQ(answer.at_pointer("/choices/0/message/content"), "other");
  EXPECT_EQ(answer.at_pointer("/choices/1/finish_reason"), "stop");
  EXPECT_EQ(answer.at_pointer("/choices/2/index"), 2);
}

TEST(CompletionReplyTest, CallsOfToolsComeAsTheyAreWritten) {
  const std::vector<std::string> texts = {"So",     ".<tool_",       "call>\n{\"na",    "me\": \"f\", \"arguments\": ",
                                          "{\"x\"", ": \"\u00E4\"}", "}\n</tool_call>", "<tool_call>{\"name\":\"g\"}"};
  CompletionCall call = Call();
  call.tools = ToolSyntax::kTagged;
  CompletionReply reply(Dialect::kChat, call, &DemoTokenizer());
  std::vector<std::string> deltas;
  const auto take = [&](const StreamEvent& event) {
    for (const json::value& chunk : Events(reply.Take(event))) {
      json::object delta = ChoiceOf(chunk).at("delta").as_object();
      if (delta.contains("tool_calls")) {
        json::object& first = delta["tool_calls"].as_array().at(0).as_object();
        if (first.contains("id")) first["id"] = "ID";
      }
      deltas.push_back(json::serialize(delta));
    }
  };
  for (const std::string& text : texts) take(Text(text));
  take(End(FinishReason::kEos));
  EXPECT_EQ(deltas,
            (std::vector<std::string>{
                R"({"content":"So"})", R"({"content":"."})",
                R"({"tool_calls":[{"index":0,"id":"ID","type":"function","function":{"name":"f","arguments":""}}]})",
                R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]})",
                "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\": \\\"\u00E4\\\"}\"}}]}",
                R"({"tool_calls":[{"index":1,"id":"ID","type":"function","function":{"name":"g","arguments":""}}]})",
                R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})", "{}"}));
  const json::value whole = Parsed(reply.Whole({}));
  EXPECT_EQ(whole.at_pointer("/choices/0/finish_reason"), "tool_calls");
  EXPECT_EQ(whole.at_pointer("/choices/0/message/content"), "So.");
  EXPECT_EQ(whole.at_pointer("/choices/0/message/tool_calls/0/function/arguments"), "{\"x\": \"\u00E4\"}");
  EXPECT_EQ(whole.at_pointer("/choices/0/message/tool_calls/1/function/arguments"), "{}");
}

TEST(CompletionReplyTest, LogprobsOfACallsTokensStandBesideItsPieces) {
  CompletionCall call = Call();
  call.tools = ToolSyntax::kPlainObject;
  call.logprobs = true;
  CompletionReply reply(Dialect::kChat, call, &DemoTokenizer());
  size_t tokens = 0;
  for (const char* text : {"{\"name\": \"f\", ", "\"arguments\": {", "}", "}"}) {
    const auto events = Events(reply.Take(Text(text)));
    ASSERT_FALSE(events.empty()) << text;
    for (const json::value& event : events) {
      const json::object choice = ChoiceOf(event);
      if (!choice.at("logprobs").is_null()) tokens += choice.at("logprobs").at("content").as_array().size();
    }
  }
  EXPECT_EQ(tokens, 4u);
}

TEST(CompletionReplyTest, EchoComesFirst) {
  CompletionCall call = Call(1, 2);
  call.echo = true;
  CompletionReply reply(Dialect::kText, call, &DemoTokenizer());
  EXPECT_EQ(ChoiceOf(Events(reply.First()).at(1)).at("text"), "ab");
  reply.Take(Text("c", 1));
  EXPECT_EQ(Parsed(reply.Whole({})).at_pointer("/choices/1/text"), "abc");
}

TEST(CompletionReplyTest, LogprobsOfAChat) {
  CompletionCall call = Call();
  call.logprobs = true;
  CompletionReply reply(Dialect::kChat, call, &DemoTokenizer());
  StreamEvent event = Text("x");
  event.top_logprobs = {{.id = IdOf("x"), .logprob = -0.5f},
                        {.id = IdOf("y"), .logprob = -std::numeric_limits<float>::infinity()}};
  reply.Take(event);
  StreamEvent eos{.token = IdOf("y"), .finish = FinishReason::kEos};  // no part of the text
  EXPECT_EQ(ChoiceOf(Events(reply.Take(eos)).at(0)).at("logprobs"), nullptr);
  const json::value answer = Parsed(reply.Whole({}));
  const auto& content = answer.at_pointer("/choices/0/logprobs/content").as_array();
  ASSERT_EQ(content.size(), 1u);
  EXPECT_EQ(content[0].at("token"), "x");
  EXPECT_EQ(content[0].at("logprob").to_number<double>(), -0.5);
  EXPECT_EQ(json::serialize(content[0].at("bytes")), "[120]");
  EXPECT_EQ(content[0].at("top_logprobs").at(1).at("logprob").to_number<double>(), -9999.0);
  EXPECT_EQ(answer.at_pointer("/choices/0/logprobs/refusal"), nullptr);
  // A token that adds no text yet is told all the same.
  EXPECT_NE(reply.Take(Text("")), "");
}

TEST(CompletionReplyTest, OffsetsOfLogprobsCountCharacters) {
  CompletionCall call = Call();
  call.logprobs = true;
  CompletionReply reply(Dialect::kText, call, &DemoTokenizer());
  std::vector<std::string> streamed;
  for (const char* part : {"a", "\u00E4\U0001F98A", "", "b"}) {
    const StreamEvent event = Text(part);
    streamed.push_back(json::serialize(ChoiceOf(Events(reply.Take(event)).at(0)).at("logprobs").at("text_offset")));
  }
  EXPECT_EQ(json::serialize(Parsed(reply.Whole({})).at_pointer("/choices/0/logprobs/text_offset")), "[0,1,3,3]");
  EXPECT_EQ(streamed, (std::vector<std::string>{"[0]", "[1]", "[3]", "[3]"}));
}

TEST(CompletionReplyTest, UsageAddsUpRequests) {
  const CompletionCall call = Call(1, 2);
  CompletionReply reply(Dialect::kText, call, &DemoTokenizer());
  for (int i = 0; i < 5; ++i) reply.Take(Text("a", i % 2));
  std::vector<Result<BatchOutput>> outputs;
  outputs.emplace_back(BatchOutput{.cached_tokens = 2, .first_step_ms = 1, .first_token_ms = 3, .total_ms = 7});
  outputs.emplace_back(Internal("failed"));
  const CompletionUsage usage = reply.Usage(outputs);
  EXPECT_EQ(usage.prompt_tokens, 4);
  EXPECT_EQ(usage.cached_tokens, 2);
  EXPECT_EQ(usage.completion_tokens, 5);
  EXPECT_EQ(usage.total_ms, 7);
  EXPECT_EQ(reply.Usage({}).completion_tokens, 5);
}

TEST(CompletionReplyTest, TimingsHaveNoInfinities) {
  const json::object nothing = TimingsJson({});
  for (const auto& [name, value] : nothing) EXPECT_EQ(value.to_number<double>(), 0.0) << name;
  const json::object some = TimingsJson({.prompt_tokens = 10,
                                         .cached_tokens = 2,
                                         .completion_tokens = 5,
                                         .queued_ms = 1,
                                         .first_token_ms = 5,
                                         .total_ms = 25});
  EXPECT_EQ(some.at("prompt_n"), 8);
  EXPECT_DOUBLE_EQ(some.at("prompt_per_second").to_number<double>(), 2000);
  EXPECT_DOUBLE_EQ(some.at("predicted_per_second").to_number<double>(), 200);
}

TEST(CompletionReplyTest, FinishReasons) {
  EXPECT_EQ(FinishReasonJson(FinishReason::kNone), nullptr);
  EXPECT_EQ(FinishReasonJson(FinishReason::kEos), "stop");
  EXPECT_EQ(FinishReasonJson(FinishReason::kStopString), "stop");
  EXPECT_EQ(FinishReasonJson(FinishReason::kLength), "length");
}

}  // namespace
}  // namespace kvasir::server
