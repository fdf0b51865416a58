#include "server/responses_call.h"

#include "server/responses_items.h"
#include "server/testing.h"

namespace kvasir::server {
namespace {

struct Outcome {
  ResponsesCall call;
  std::optional<ApiError> error;
};

Outcome Read(std::string_view body) {
  Outcome outcome;
  outcome.error = ReadResponsesCall(ServedDemo::Get().context(), Parsed(body).get_object(), outcome.call);
  return outcome;
}

ResponsesCall Good(std::string_view body) {
  Outcome outcome = Read(body);
  EXPECT_FALSE(outcome.error) << body << ": " << outcome.error->message;
  return std::move(outcome.call);
}

std::string MessagesOf(std::string_view body) {
  const json::value parsed = Parsed(body);
  RequestFields fields(parsed.get_object());
  const auto messages = ReadResponsesInput(fields);
  return messages ? json::serialize(*messages) : fields.error()->param;
}

TEST(ResponsesCallTest, ItemsBecomeMessages) {
  EXPECT_EQ(MessagesOf(R"({"input": "Hi", "instructions": "Be kind."})"),
            R"([{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}])");
  EXPECT_EQ(MessagesOf(R"({"input": [{"type": "message", "id": "m", "status": "completed", "role": "developer",
                           "content": [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]}]})"),
            R"([{"role":"system","content":"a\nb"}])");
}

TEST(ResponsesCallTest, CallsThatFollowEachOtherAreOneMessage) {
  EXPECT_EQ(MessagesOf(R"({"input": [{"role": "assistant", "content": "Well."},
                           {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"a\":1}"},
                           {"type": "function_call", "call_id": "2", "name": "g", "arguments": "not JSON"},
                           {"type": "function_call_output", "call_id": "2", "output": "two"},
                           {"type": "function_call_output", "call_id": "1",
                            "output": [{"type": "input_text", "text": "one"}]}]})"),
            R"([{"role":"assistant","content":"Well.","tool_calls":[)"
            R"({"id":"1","type":"function","function":{"name":"f","arguments":{"a":1}}},)"
            R"({"id":"2","type":"function","function":{"name":"g","arguments":"not JSON"}}]},)"
            R"({"role":"tool","tool_call_id":"2","name":"g","content":"two"},)"
            R"({"role":"tool","tool_call_id":"1","name":"f","content":"one"}])");
}

TEST(ResponsesCallTest, TruncationLeavesOutTheOldest) {
  const ModelContext model = ServedDemo::Get().context();
  json::array messages = {{{"role", "system"}, {"content", "Be kind."}}};
  for (int i = 0; i < 40; ++i) {
    messages.push_back(
        {{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", fmt::format(" {} foxes in a row", i)}});
  }
  const json::object none;
  RequestFields fields(none);
  EXPECT_FALSE(EncodeResponsesInput(model, fields, messages, {}, false));
  EXPECT_EQ(fields.error()->code, "context_length_exceeded");
  RequestFields again(none);
  const auto ids = EncodeResponsesInput(model, again, messages, {}, true);
  ASSERT_TRUE(ids);
  EXPECT_LT(static_cast<int64_t>(ids->size()), model.engine.context());
  const std::string text = ServedDemo::Get().Text(*ids);
  EXPECT_TRUE(text.starts_with("system: Be kind.")) << text;
  EXPECT_TRUE(text.ends_with(" 39 foxes in a row")) << text;
  EXPECT_EQ(text.find(" 0 foxes"), text.npos) << text;
  // No more than had to go: a message is some ten tokens long.
  EXPECT_GT(static_cast<int64_t>(ids->size()), model.engine.context() - 24);
}

TEST(ResponsesCallTest, ToolsAreFlat) {
  const auto call = Good(R"({"input": "?", "tools": [{"type": "function", "name": "f", "strict": true,
                             "parameters": {"type": "object"}}, {"type": "function", "name": "g"}],
                             "tool_choice": {"type": "function", "name": "g"}})");
  EXPECT_NE(call.prompts.at(0).constraint, nullptr);
  EXPECT_EQ(call.tools, ToolSyntax::kPlainObject);
  EXPECT_EQ(json::serialize(call.settings.at("tools")),
            R"([{"type":"function","name":"f","strict":true,"parameters":{"type":"object"}},)"
            R"({"type":"function","name":"g","strict":false,"parameters":null}])");
  const std::string prompt = ServedDemo::Get().Text(call.prompts.at(0).prompt);
  EXPECT_NE(prompt.find(R"({"type": "function", "function": {"name": "g"}})"), prompt.npos) << prompt;
}

TEST(ResponsesCallTest, SettingsAreEchoed) {
  const auto call = Good(R"({"input": "?", "temperature": 0.7, "top_p": 0.3, "store": true, "max_output_tokens": 5,
                             "metadata": {"k": "v"}})");
  EXPECT_EQ(call.prompts.at(0).max_new_tokens, 5);
  EXPECT_EQ(call.settings.at("temperature"), 0.7);
  EXPECT_EQ(call.settings.at("top_p"), 0.3);
  EXPECT_EQ(call.settings.at("store"), false);
  EXPECT_EQ(call.settings.at("max_output_tokens"), 5);
  EXPECT_EQ(json::serialize(call.settings.at("metadata")), R"({"k":"v"})");
  EXPECT_EQ(call.settings.at("tool_choice"), "auto");
}

TEST(ResponsesCallTest, ErrorsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "input"},
      {R"({"input": "a", "previous_response_id": "r"})", "previous_response_id"},
      {R"({"input": [{"type": "item_reference", "id": "x"}]})", "input[0].type"},
      {R"({"input": [{"role": "user", "content": "a"}, {"type": "function_call_output", "call_id": "1"}]})",
       "input[1].call_id"},
      {R"({"input": [{"type": "function_call", "call_id": "1", "name": "f"},
                     {"type": "function_call_output", "call_id": "1"}]})",
       "input[1].output"},
      {R"({"input": [{"role": "user", "content": [{"type": "input_file"}]}]})", "input[0].content"},
      {R"({"input": "a", "text": {"format": {"type": "json_schema", "name": "n"}}})", "text.format.schema"},
      {R"({"input": "a", "text": 3})", "text"},
      {R"({"input": "a", "tools": [{"type": "web_search"}]})", "tools[0]"},
      {R"({"input": "a", "tools": [{"type": "function"}]})", "tools[0].function.name"},
      {R"({"input": "a", "tool_choice": {"type": "mcp"}})", "tool_choice"},
      {R"({"input": "a", "metadata": {"k": 1}})", "metadata"},
      {R"({"input": "a", "n": 2})", "n"},
  };
  for (const auto& [body, param] : cases) {
    const Outcome outcome = Read(body);
    ASSERT_TRUE(outcome.error) << body;
    EXPECT_EQ(outcome.error->param, param) << outcome.error->message;
    EXPECT_EQ(outcome.error->status, 400);
  }
}

}  // namespace
}  // namespace kvasir::server
