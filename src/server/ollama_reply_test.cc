#include "server/ollama_reply.h"

#include "server/testing.h"

namespace kvasir::server {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

OllamaCall Call(bool stream, ToolSyntax tools = ToolSyntax::kNone) {
  OllamaCall call;
  call.model = "m:latest";
  call.stream = stream;
  call.tools = tools;
  call.prompts.resize(1);
  return call;
}

const CompletionUsage kUsage{.prompt_tokens = 7,
                             .cached_tokens = 2,
                             .completion_tokens = 3,
                             .queued_ms = 1,
                             .first_token_ms = 2.5,
                             .total_ms = 10};

/// One object, without the time.
json::object Steady(std::string_view line) {
  json::object object = Parsed(line).get_object();
  EXPECT_EQ(object.stable_erase("created_at"), 1u);
  return object;
}

TEST(OllamaReplyTest, TimesAreRfc3339) {
  EXPECT_EQ(Rfc3339({}), "1970-01-01T00:00:00.000000000Z");
  const std::chrono::system_clock::time_point time(seconds(1767323045) + nanoseconds(60'000'700));
  EXPECT_EQ(Rfc3339(time), "2026-01-02T03:04:05.060000700Z");
  EXPECT_EQ(Rfc3339(std::chrono::system_clock::time_point(-nanoseconds(1))), "1969-12-31T23:59:59.999999999Z");
}

TEST(OllamaReplyTest, LinesOfAStream) {
  const OllamaCall call = Call(true);
  OllamaReply reply(OllamaRoute::kChat, call, nullptr);
  EXPECT_EQ(reply.First(), "");
  EXPECT_EQ(reply.ping(), "");
  const std::string line = reply.Take(TextEventOf("a\nb"));
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(json::serialize(Steady(line)),
            R"({"model":"m:latest","message":{"role":"assistant","content":"a\nb"},"done":false})");
  EXPECT_EQ(reply.Take(TextEventOf("")), "");
  EXPECT_EQ(reply.Take(EndOf(FinishReason::kEos)), "");
  EXPECT_EQ(json::serialize(Steady(reply.Last(kUsage))),
            R"({"model":"m:latest","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",)"
            R"("total_duration":10000000,"load_duration":1000000,"prompt_eval_count":7,)"
            R"("prompt_eval_duration":1500000,"eval_count":3,"eval_duration":7500000})");
  EXPECT_EQ(reply.Failure({.message = "no\n"}), "{\"error\":\"no\\n\"}\n");
}

TEST(OllamaReplyTest, AWholeText) {
  const OllamaCall call = Call(false);
  OllamaReply reply(OllamaRoute::kGenerate, call, nullptr);
  EXPECT_EQ(reply.Take(TextEventOf("one ")), "");
  reply.Take(TextEventOf("two"));
  reply.Take(EndOf(FinishReason::kLength));
  const json::object answer = Steady(reply.Whole(kUsage));
  EXPECT_EQ(answer.at("response"), "one two");
  EXPECT_EQ(answer.at("done_reason"), "length");
  EXPECT_EQ(Steady(OllamaLoaded(OllamaRoute::kGenerate, call)),
            Parsed(R"({"model": "m:latest", "response": "", "done": true, "done_reason": "load"})"));
}

TEST(OllamaReplyTest, CallsOfTools) {
  for (const bool stream : {true, false}) {
    const OllamaCall call = Call(stream, ToolSyntax::kTagged);
    OllamaReply reply(OllamaRoute::kChat, call, nullptr);
    std::vector<std::string> lines = {
        reply.Take(TextEventOf(R"(Well.<tool_call>{"name": "f", "arguments": {"a": )")),  // is told when it is whole
        reply.Take(TextEventOf("[1]}}</tool_call>")),
        reply.Take(TextEventOf(R"(<tool_call>{"name": "g", "arguments": "odd"}</tool_call>)")),
        reply.Take(EndOf(FinishReason::kEos))};
    if (!stream) lines = {reply.Whole(kUsage)};
    json::array calls;
    std::string content;
    for (const std::string& line : lines) {
      if (line.empty()) continue;
      const json::object message = Steady(line).at("message").get_object();
      content += message.at("content").get_string();
      if (!message.contains("tool_calls")) continue;
      for (const json::value& item : message.at("tool_calls").get_array()) calls.push_back(item.at("function"));
    }
    EXPECT_EQ(content, "Well.");
    EXPECT_EQ(json::serialize(calls), R"([{"index":0,"name":"f","arguments":{"a":[1]}},)"
                                      R"({"index":1,"name":"g","arguments":{"arguments":"odd"}}])");
  }
}

}  // namespace
}  // namespace kvasir::server
