// Calls of tools in texts, however they are cut into pieces.
#include "server/tool_calls.h"

#include <gtest/gtest.h>

namespace kvasir::server {
namespace {

struct Read {
  std::string content;
  std::vector<std::string> calls;  // "name arguments"
};

Read ReadInPieces(ToolSyntax syntax, std::string_view text, size_t piece) {
  ToolCallReader reader(syntax);
  Read read;
  const auto take = [&](const ToolCallReader::Output& out) {
    read.content += out.content;
    for (const ToolCall& call : out.calls) {
      EXPECT_TRUE(call.id.starts_with("call_"));
      read.calls.push_back(call.name + " " + call.arguments);
    }
  };
  for (size_t at = 0; at < text.size(); at += piece) take(reader.Push(text.substr(at, piece)));
  take(reader.Finish());
  EXPECT_EQ(reader.count(), static_cast<int64_t>(read.calls.size()));
  return read;
}

void Expect(ToolSyntax syntax, std::string_view text, std::string_view content, const std::vector<std::string>& calls) {
  for (size_t piece = 1; piece <= text.size() + 1; ++piece) {
    const Read read = ReadInPieces(syntax, text, piece);
    EXPECT_EQ(read.content, content) << text << " in pieces of " << piece;
    EXPECT_EQ(read.calls, calls) << text << " in pieces of " << piece;
  }
}

TEST(ToolCallsTest, SyntaxFollowsTheTemplate) {
  EXPECT_EQ(ToolSyntaxOf("{% for m in messages %}{{ m.content }}{% endfor %}"), ToolSyntax::kNone);
  EXPECT_EQ(ToolSyntaxOf("{% if tools %}<tool_call>{% endif %}"), ToolSyntax::kTagged);
  EXPECT_EQ(ToolSyntaxOf("{% if tools %}[TOOL_CALLS]{% endif %}"), ToolSyntax::kListed);
  EXPECT_EQ(ToolSyntaxOf("{% if tools %}{\"name\": x, \"parameters\": y}{% endif %}"), ToolSyntax::kPlainObject);
  EXPECT_EQ(ToolSyntaxOf("<tool_call> without a variable"), ToolSyntax::kNone);
}

TEST(ToolCallsTest, Tagged) {
  Expect(ToolSyntax::kTagged, "just text", "just text", {});
  Expect(ToolSyntax::kTagged, "ok <tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call> done",
         "ok  done", {"f {\"x\":1}"});
  Expect(ToolSyntax::kTagged,
         "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"g\"}</tool_call>", "",
         {"f {}", "g {}"});
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{}}", "", {"f {}"});  // no end
}

TEST(ToolCallsTest, WhatIsNoCallIsKept) {
  for (const char* text : {"a <tool_cal", "<tool_call>no JSON</tool_call>", "<tool_call>{\"x\":1}</tool_call> b",
                           "<tool_call>{\"name\": 3}", "<tool_call><tool_call></tool_call>", "</tool_call>"}) {
    Expect(ToolSyntax::kTagged, text, text, {});
  }
  for (const char* text : {"[TOOL_CALLS]nothing", "[TOOL_CALLS][{\"name\":\"f\"}, 3]", "[TOOL", "[TOOL_CALLS]"}) {
    Expect(ToolSyntax::kListed, text, text, {});
  }
  for (const char* text : {"{\"x\": 1}", "{ not JSON", "<|python_tag|>print(1)", " text {\"name\":\"f\"}", "  "}) {
    Expect(ToolSyntax::kPlainObject, text, text, {});
  }
}

TEST(ToolCallsTest, Listed) {
  Expect(ToolSyntax::kListed, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"x\": [1, 2]}}, {\"name\": \"g\"}]", "",
         {"f {\"x\":[1,2]}", "g {}"});
}

TEST(ToolCallsTest, PlainObject) {
  Expect(ToolSyntax::kPlainObject, "\n{\"name\": \"f\", \"parameters\": {\"x\": \"\xC3\xA4\"}}", "",
         {"f {\"x\":\"\xC3\xA4\"}"});
  Expect(ToolSyntax::kPlainObject, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "", {"f {}"});
  Expect(ToolSyntax::kPlainObject, "{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 2}\"}", "", {"f {\"x\": 2}"});
}

TEST(ToolCallsTest, JsonOfACall) {
  const ToolCall call{.id = "call_1", .name = "f", .arguments = "{}"};
  EXPECT_EQ(boost::json::serialize(ToolCallJson(call)),
            R"({"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}})");
  EXPECT_EQ(ToolCallJson(call, 2).at("index"), 2);
}

}  // namespace
}  // namespace kvasir::server
