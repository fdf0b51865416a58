#include "server/responses_reply.h"

#include "server/testing.h"

namespace kvasir::server {
namespace {

ResponsesCall Call(bool stream, ToolSyntax tools = ToolSyntax::kNone) {
  ResponsesCall call;
  call.model = "m";
  call.stream = stream;
  call.tools = tools;
  call.prompts.resize(1);
  call.settings = {{"store", false}};
  return call;
}

/// The data of events, each under the name that its data has.
std::vector<json::value> Events(std::string_view text) {
  std::vector<json::value> events;
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    const size_t line = text.find('\n');
    const json::value data = Parsed(text.substr(line + 7, end - line - 7));
    EXPECT_EQ(text.substr(0, line), "event: " + std::string(data.at("type").as_string()));
    EXPECT_TRUE(text.substr(line + 1).starts_with("data: "));
    events.push_back(data);
    text.remove_prefix(end + 2);
  }
  return events;
}

std::vector<std::string> Kinds(const std::vector<json::value>& events) {
  std::vector<std::string> kinds;
  for (const json::value& event : events) {
    kinds.push_back(std::string(event.at("type").as_string()).substr(std::string("response.").size()));
  }
  return kinds;
}

/// First and all pieces, in the order in which they are sent although the first ones are asked for later.
std::vector<json::value> StreamOf(ResponsesReply& reply, const std::vector<StreamEvent>& taken) {
  std::string text;
  for (const StreamEvent& event : taken) text += reply.Take(event);
  text.insert(0, reply.First());
  std::vector<json::value> events = Events(text + reply.Last({.prompt_tokens = 4, .completion_tokens = 2}));
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].at("sequence_number"), i);
  return events;
}

using Strings = std::vector<std::string>;

TEST(ResponsesReplyTest, EventsOfAText) {
  const ResponsesCall call = Call(true);
  ResponsesReply reply(call, nullptr);
  const auto events =
      StreamOf(reply, {TextEventOf("one"), TextEventOf(""), TextEventOf(" two"), EndOf(FinishReason::kEos)});
  EXPECT_EQ(Kinds(events),
            (Strings{"created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
                     "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed"}));
  EXPECT_EQ(json::serialize(events[0].at("response").at("output")), "[]");
  const json::value& final = events.back().at("response");
  EXPECT_EQ(final.at("output").at(0), events[8].at("item"));
  EXPECT_EQ(final.at("output").at(0).at("content").at(0).at("text"), "one two");
  EXPECT_EQ(final.at("status"), "completed");
  EXPECT_EQ(final.at("usage").at("total_tokens"), 6);
  EXPECT_EQ(final.at("store"), false);
  EXPECT_EQ(final.at("id"), events[0].at("response").at("id"));
}

TEST(ResponsesReplyTest, AnAnswerThatIsCutOff) {
  const ResponsesCall call = Call(true);
  ResponsesReply reply(call, nullptr);
  const auto events = StreamOf(reply, {TextEventOf("one"), EndOf(FinishReason::kLength)});
  EXPECT_EQ(events.back().at("type"), "response.incomplete");
  EXPECT_EQ(json::serialize(events.back().at("response").at("incomplete_details")),
            R"({"reason":"max_output_tokens"})");
  EXPECT_EQ(events.back().at("response").at("output").at(0).at("status"), "incomplete");
}

TEST(ResponsesReplyTest, AnEmptyAnswerIsAMessage) {
  const ResponsesCall call = Call(true);
  ResponsesReply reply(call, nullptr);
  const auto events = StreamOf(reply, {EndOf(FinishReason::kEos)});
  EXPECT_EQ(events.back().at("response").at("output").at(0).at("content").at(0).at("text"), "");
}

TEST(ResponsesReplyTest, TextAndCallsInTheirOrder) {
  const std::vector<StreamEvent> taken = {
      TextEventOf("Well."),     TextEventOf("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"),
      TextEventOf("\n"),        TextEventOf("<tool_call>{\"name\": \"g\"}</tool_call>"),
      TextEventOf("\n"),        TextEventOf("End."),
      EndOf(FinishReason::kEos)};
  const ResponsesCall streamed = Call(true, ToolSyntax::kTagged);
  ResponsesReply stream(streamed, nullptr);
  const auto events = StreamOf(stream, taken);
  const Strings call_kinds = {"output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
                              "output_item.done"};
  Strings expected = {"created", "in_progress"};
  const Strings text_kinds = {"output_item.added", "content_part.added", "output_text.delta",
                              "output_text.done",  "content_part.done",  "output_item.done"};
  for (const Strings* const part : {&text_kinds, &call_kinds, &call_kinds, &text_kinds}) {
    expected.insert(expected.end(), part->begin(), part->end());
  }
  expected.emplace_back("completed");
  EXPECT_EQ(Kinds(events), expected);

  const ResponsesCall at_once = Call(false, ToolSyntax::kTagged);
  ResponsesReply whole(at_once, nullptr);
  for (const StreamEvent& event : taken) EXPECT_EQ(whole.Take(event), "");
  const json::value answer = Parsed(whole.Whole({}));
  for (const json::value& response : {answer, events.back().at("response")}) {
    const json::array& output = response.at("output").as_array();
    ASSERT_EQ(output.size(), 4u);
    EXPECT_EQ(output[0].at("content").at(0).at("text"), "Well.");
    EXPECT_EQ(output[1].at("name"), "f");
    EXPECT_EQ(output[2].at("arguments"), "{}");
    EXPECT_NE(output[1].at("call_id"), output[2].at("call_id"));
    EXPECT_EQ(output[3].at("content").at(0).at("text"), "\nEnd.");
  }
}

TEST(ResponsesReplyTest, ArgumentsComeAsTheyAreWritten) {
  const ResponsesCall call = Call(true, ToolSyntax::kPlainObject);
  ResponsesReply reply(call, nullptr);
  const auto events = StreamOf(reply, {TextEventOf("{\"name\": \"f\", "), TextEventOf("\"arguments\": {\"x\":"),
                                       TextEventOf(" 1"), TextEventOf("}}"), EndOf(FinishReason::kEos)});
  EXPECT_EQ(Kinds(events), (Strings{"created", "in_progress", "output_item.added", "function_call_arguments.delta",
                                    "function_call_arguments.delta", "function_call_arguments.delta",
                                    "function_call_arguments.done", "output_item.done", "completed"}));
  EXPECT_EQ(events[2].at("item").at("arguments"), "");
  EXPECT_EQ(events[2].at("item").at("name"), "f");
  EXPECT_EQ(events[3].at("delta"), "{\"x\":");
  EXPECT_EQ(events[6].at("arguments"), "{\"x\": 1}");
  EXPECT_EQ(events[7].at("item"), events[8].at("response").at("output").at(0));
}

TEST(ResponsesReplyTest, ACallThatIsCutOff) {
  const ResponsesCall call = Call(true, ToolSyntax::kTagged);
  ResponsesReply reply(call, nullptr);
  const auto events = StreamOf(
      reply, {TextEventOf("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\":"), EndOf(FinishReason::kLength)});
  EXPECT_EQ(events.back().at("type"), "response.incomplete");
  const json::value& item = events.back().at("response").at("output").at(0);
  EXPECT_EQ(item.at("status"), "incomplete");
  EXPECT_EQ(item.at("arguments"), "{\"x\":");
}

TEST(ResponsesReplyTest, AFailureInTheMiddle) {
  const ResponsesCall call = Call(true);
  ResponsesReply reply(call, nullptr);
  std::string text = reply.First();
  text += reply.Take(TextEventOf("one"));
  text += reply.Take(EndOf(FinishReason::kCancelled));
  text += reply.Failure({.status = 503, .message = "the server is shutting down"});
  const auto events = Events(text);
  EXPECT_EQ(Kinds(events), (Strings{"created", "in_progress", "output_item.added", "content_part.added",
                                    "output_text.delta", "failed"}));
  const json::value& failed = events.back().at("response");
  EXPECT_EQ(events.back().at("sequence_number"), 5);
  EXPECT_EQ(failed.at("status"), "failed");
  EXPECT_EQ(json::serialize(failed.at("error")), R"({"code":"server_error","message":"the server is shutting down"})");
  EXPECT_EQ(failed.at("output").at(0).at("status"), "incomplete");
}

}  // namespace
}  // namespace kvasir::server
