// Calls of tools in texts, however they are cut into pieces.
#include "server/tool_calls.h"

#include <gtest/gtest.h>
#include <boost/json/serialize.hpp>

#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace kvasir::server {
namespace {

struct Read {
  std::string content;
  std::vector<std::string> calls;  // "name arguments", with "…" behind what was cut off
  size_t pieces = 0;               // of arguments
};

Read ReadInPieces(ToolSyntax syntax, std::string_view text, size_t piece) {
  ToolCallReader reader(syntax);
  Read read;
  bool open = false;
  const auto take = [&](const AnswerParts& parts) {
    for (const AnswerPart& part : parts) {
      if (part.kind == AnswerPart::Kind::kText) {
        EXPECT_FALSE(open);
        EXPECT_FALSE(part.text.empty());
        read.content += part.text;
        continue;
      }
      const bool begins = part.kind == AnswerPart::Kind::kCallBegins;
      EXPECT_NE(open, begins);
      open = part.kind != AnswerPart::Kind::kCallEnds;
      if (begins) {
        EXPECT_TRUE(part.id.starts_with("call_"));
        read.calls.push_back(part.text + " ");
      } else if (open) {
        EXPECT_FALSE(part.text.empty());
        read.calls.back() += part.text;
        ++read.pieces;
      } else if (part.cut) {
        read.calls.back() += "…";
      }
      EXPECT_EQ(part.call + 1, static_cast<int64_t>(read.calls.size()));
    }
  };
  for (size_t at = 0; at < text.size(); at += piece) take(reader.Push(text.substr(at, piece)));
  take(reader.Finish());
  EXPECT_FALSE(open);
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
         "ok  done", {"f {\"x\": 1}"});
  Expect(ToolSyntax::kTagged,
         "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"g\"}</tool_call>", "",
         {"f {}", "g {}"});
  // The last mark is left out, or cut off.
  for (const char* end : {"", " \n", "</tool", "\n</tool_call"}) {
    Expect(ToolSyntax::kTagged, std::string("<tool_call>{\"name\":\"f\",\"arguments\":{}}") + end, "", {"f {}"});
  }
  Expect(ToolSyntax::kTagged, "<tool_call>[{\"name\":\"f\"},\n{\"name\":\"g\"}]</tool_call>", "", {"f {}", "g {}"});
}

TEST(ToolCallsTest, WhatIsNoCallIsKept) {
  for (const char* text : {"a <tool_cal", "<tool_call>no JSON</tool_call>", "<tool_call>{\"x\":1}</tool_call> b",
                           "<tool_call>{\"name\": 3}", "<tool_call><tool_call></tool_call>", "</tool_call>",
                           "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>", "<tool_call>{\"name\": \"f\"",
                           "<tool_call>{\"arguments\": {\"x\": 1}}</tool_call>", "<tool_call>[]</tool_call>",
                           "<tool_call>[[{\"name\":\"f\"}]]</tool_call>", "<tool_call>3</tool_call>",
                           "<tool_call>{\"name\": [\"f\"], \"arguments\": {}}", "<tool_call>{\"name\": \"f\", oops"}) {
    Expect(ToolSyntax::kTagged, text, text, {});
  }
  for (const char* text : {"[TOOL_CALLS]nothing", "[TOOL", "[TOOL_CALLS]", "[TOOL_CALLS][]", "[TOOL_CALLS][3]"}) {
    Expect(ToolSyntax::kListed, text, text, {});
  }
  for (const char* text : {"{\"x\": 1}", "{ not JSON", "<|python_tag|>print(1)", " text {\"name\":\"f\"}", "  ",
                           "<|python_tag", "{\"name\": \"f\"", "[{\"name\": \"f\"}]"}) {
    Expect(ToolSyntax::kPlainObject, text, text, {});
  }
  Expect(ToolSyntax::kNone, "[TOOL_CALLS]<tool_call>{\"name\":\"f\"}", "[TOOL_CALLS]<tool_call>{\"name\":\"f\"}", {});
}

TEST(ToolCallsTest, Listed) {
  Expect(ToolSyntax::kListed, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"x\": [1, 2]}}, {\"name\": \"g\"}]\n",
         "", {"f {\"x\": [1, 2]}", "g {}"});
  // What is a call stays one, whatever comes behind it.
  Expect(ToolSyntax::kListed, "[TOOL_CALLS][{\"name\":\"f\"}, 3] and", ", 3] and", {"f {}"});
  Expect(ToolSyntax::kListed, "[TOOL_CALLS][{\"name\":\"f\"}, {\"name\":", ", {\"name\":", {"f {}"});
  Expect(ToolSyntax::kListed, "[TOOL_CALLS][{\"name\":\"f\"},", "", {"f {}"});
}

TEST(ToolCallsTest, PlainObject) {
  Expect(ToolSyntax::kPlainObject, "\n{\"name\": \"f\", \"parameters\": {\"x\": \"\xC3\xA4\"}}", "",
         {"f {\"x\": \"\xC3\xA4\"}"});
  Expect(ToolSyntax::kPlainObject, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "", {"f {}"});
  Expect(ToolSyntax::kPlainObject, "{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 2}\"}", "", {"f {\"x\": 2}"});
  Expect(ToolSyntax::kPlainObject, "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}\n", "",
         {"f {}", "g {}"});
  Expect(ToolSyntax::kPlainObject, "{\"name\": \"f\", \"parameters\": {}}; so {\"name\": \"g\"}",
         "; so {\"name\": \"g\"}", {"f {}"});
}

TEST(ToolCallsTest, ArgumentsAreTheModelsOwnText) {
  const std::string arguments =
      "{ \"a\" : [1.50, 1e400, -0, {\"name\": \"g\", \"arguments\": {}}], \"b\": "
      "\"}{\\\"]\\ud83e\\udd8a</tool_call>\",\n"
      "\"c\":\"\u00E4\U0001F98A\", \"a\": null }";
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":" + arguments + "}</tool_call>!", "!",
         {"f " + arguments});
  Expect(ToolSyntax::kPlainObject, "{\"x\": {\"name\": 1}, \"parameters\":" + arguments + ", \"name\":\"f\"}", "",
         {"f " + arguments});
  // What is no object, or comes twice.
  for (const auto& [written, read] : std::vector<std::pair<std::string, std::string>>{
           {"[1, 2]", "[1, 2]"}, {"null", "{}"}, {"-1.5e3", "-1.5e3"}, {"true", "true"}, {"\"\"", ""}}) {
    Expect(ToolSyntax::kTagged,
           "<tool_call>{\"name\":\"f\",\"arguments\":" + written + ", \"name\": 3, \"parameters\": {}}</tool_call>", "",
           {"f " + read});
  }
}

TEST(ToolCallsTest, ArgumentsComeAsTheyAreWritten) {
  ToolCallReader reader(ToolSyntax::kTagged);
  EXPECT_TRUE(reader.Push("<tool_call>{\"name\": \"f\", \"arguments\"").empty());
  const AnswerParts first = reader.Push(": {\"x\"");
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0].text, "f");
  EXPECT_EQ(first[1].text, "{\"x\"");
  const AnswerParts more = reader.Push(": \"\u00E4</tool_");
  ASSERT_EQ(more.size(), 1u);
  EXPECT_EQ(more[0].text, ": \"\u00E4</tool_");  // in a string it is no mark
  const AnswerParts last = reader.Push("\"}}</tool_call>Now");
  ASSERT_EQ(last.size(), 3u);
  EXPECT_EQ(last[0].text, "\"}");
  EXPECT_EQ(last[1].kind, AnswerPart::Kind::kCallEnds);
  EXPECT_EQ(last[2].text, "Now");
  EXPECT_GT(ReadInPieces(ToolSyntax::kPlainObject, "{\"name\":\"f\",\"arguments\":{\"x\":1}}", 1).pieces, 5u);
}

TEST(ToolCallsTest, ACallThatGoesWrongStaysOne) {
  // Cut off: what there is of it. A client has been told already.
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\": \"a", "", {"f {\"x\": \"a…"});
  Expect(ToolSyntax::kListed, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{", "", {"f {…"});
  // No JSON: its text up to the mark, or to the end.
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{x: 1}}</tool_call> b", " b", {"f {x: 1}}"});
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\": \"a\n</tool_call> b", " b",
         {"f {\"x\": \"a\n"});
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{x</tool", "", {"f {x</tool…"});
  Expect(ToolSyntax::kPlainObject, "{\"name\":\"f\",\"arguments\":{x: 1}} b", "", {"f {x: 1}} b…"});
  // Wrong behind its arguments: these are whole.
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{}, oops</tool_call>", ", oops</tool_call>",
         {"f {}"});
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{}, \"id\": ", "", {"f {}"});
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":{}}} b</tool_call>", "} b</tool_call>",
         {"f {}"});
  // A call behind one that was none.
  Expect(ToolSyntax::kTagged, "<tool_call>no <tool_call>{\"name\":\"f\"}</tool_call>", "<tool_call>no ", {"f {}"});
}

TEST(ToolCallsTest, DeepArguments) {
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  Expect(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":" + deep + "}</tool_call>", "", {"f " + deep});
  const std::string deeper(100'000, '[');
  const Read read = ReadInPieces(ToolSyntax::kTagged, "<tool_call>{\"name\":\"f\",\"arguments\":" + deeper, 1000);
  EXPECT_EQ(read.calls, (std::vector<std::string>{"f " + deeper + "…"}));
}

TEST(ToolCallsTest, PiecesMakeNoDifference) {
  constexpr std::string_view kParts[] = {"<tool_call>",
                                         "</tool_call>",
                                         "[TOOL_CALLS]",
                                         "<|python_tag|>",
                                         "{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         ":",
                                         ";",
                                         " ",
                                         "\n",
                                         "\"",
                                         "\\",
                                         "\"name\":\"f\"",
                                         "\"arguments\":{",
                                         "{\"name\":\"g\",\"parameters\":",
                                         "\"x\":1",
                                         "x",
                                         "\u00E4",
                                         "</tool",
                                         "3"};
  std::mt19937 random(1);
  const auto below = [&](size_t limit) { return random() % limit; };
  size_t calls = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (size_t parts = 1 + below(12); parts > 0; --parts) text += kParts[below(std::size(kParts))];
    for (const ToolSyntax syntax : {ToolSyntax::kTagged, ToolSyntax::kListed, ToolSyntax::kPlainObject}) {
      const Read whole = ReadInPieces(syntax, text, text.size());
      calls += whole.calls.size();
      for (const size_t piece : {1, 2, 5}) {
        const Read read = ReadInPieces(syntax, text, piece);
        EXPECT_EQ(read.content, whole.content) << text;
        EXPECT_EQ(read.calls, whole.calls) << text;
      }
      if (whole.calls.empty()) {
        EXPECT_EQ(whole.content, text);
      }
    }
  }
  EXPECT_GT(calls, 20u);
}

TEST(ToolCallsTest, JsonOfACall) {
  const ToolCall call{.id = "call_1", .name = "f", .arguments = "{}"};
  EXPECT_EQ(boost::json::serialize(ToolCallJson(call)),
            R"({"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}})");
  EXPECT_EQ(ToolCallJson(call, 2).at("index"), 2);
}

}  // namespace
}  // namespace kvasir::server
