#include "server/request_fields.h"

#include <gtest/gtest.h>

#include "server/completion_call.h"

namespace kvasir::server {
namespace {

json::object Object(std::string_view text) {
  auto value = ParseJson(text, "test");
  EXPECT_TRUE(value.ok()) << value.status().message();
  return value->as_object();
}

/// The name that an error bears after `read`; "": there was none.
template <typename Read>
std::string ErrorParam(std::string_view text, const Read& read) {
  const json::object object = Object(text);
  RequestFields fields(object, "outer.");
  read(fields);
  if (fields.ok()) return "";
  EXPECT_EQ(fields.error()->status, 400);
  EXPECT_EQ(fields.error()->message.find(fields.error()->param), 0u);
  return fields.error()->param;
}

TEST(RequestFieldsTest, NullIsAbsence) {
  const json::object object = Object(R"({"a": null})");
  RequestFields fields(object);
  for (const char* name : {"a", "b"}) {
    EXPECT_EQ(fields.Find(name), nullptr);
    EXPECT_EQ(fields.Int(name, 0, 1), std::nullopt);
    EXPECT_EQ(fields.Number(name, 0, 1), std::nullopt);
    EXPECT_EQ(fields.Bool(name), std::nullopt);
    EXPECT_EQ(fields.Text(name), std::nullopt);
    EXPECT_EQ(fields.Object(name), nullptr);
    EXPECT_EQ(fields.Array(name, 1), nullptr);
  }
  EXPECT_TRUE(fields.ok());
}

TEST(RequestFieldsTest, Integers) {
  const auto read = [](std::string_view text, int64_t min, int64_t max) {
    const json::object object = Object(fmt::format(R"({{"a": {}}})", text));
    return RequestFields(object).Int("a", min, max);
  };
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(read("5", 5, 5), 5);
  EXPECT_EQ(read("5.0", 5, 5), 5);
  EXPECT_EQ(read("5e0", 0, 9), 5);
  EXPECT_EQ(read("-0.0", 0, 0), 0);
  EXPECT_EQ(read("9223372036854775807", kMin, kMax), kMax);
  EXPECT_EQ(read("-9223372036854775808", kMin, kMax), kMin);
  for (const char* bad : {"4", "6", "5.5", "1e300", "-1e300", "18446744073709551615", "9223372036854775808", "\"5\"",
                          "true", "[5]", "{}"}) {
    EXPECT_EQ(read(bad, 5, 5), std::nullopt) << bad;
  }
  EXPECT_EQ(read("18446744073709551615", kMin, kMax), std::nullopt);
  EXPECT_EQ(read("9007199254740994.0", kMin, kMax), std::nullopt);  // no longer exact
}

TEST(RequestFieldsTest, ErrorsNameTheField) {
  EXPECT_EQ(ErrorParam(R"({"a": 2})", [](auto& f) { f.Int("a", 0, 1); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": 2})", [](auto& f) { f.Number("a", 0, 1); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": "1"})", [](auto& f) { f.Number("a", 0, 1); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": 1})", [](auto& f) { f.Bool("a"); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": 1})", [](auto& f) { f.Text("a"); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": "xx"})", [](auto& f) { f.Text("a", 1); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": []})", [](auto& f) { f.Object("a"); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": {}})", [](auto& f) { f.Array("a", 9); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": [1, 2]})", [](auto& f) { f.Array("a", 1); }), "outer.a");
  EXPECT_EQ(ErrorParam(R"({"a": "x", "b": [1], "c": {}, "d": false, "e": 0.5})",
                       [](auto& f) {
                         EXPECT_EQ(f.Text("a", 1), "x");
                         EXPECT_EQ(f.Array("b", 1)->size(), 1u);
                         EXPECT_TRUE(f.Object("c")->empty());
                         EXPECT_EQ(f.Bool("d"), false);
                         EXPECT_EQ(f.Number("e", 0.5, 0.5), 0.5);
                       }),
            "");
}

TEST(RequestFieldsTest, TheFirstErrorIsKept) {
  const json::object object = Object(R"({"a": 1, "b": 2})");
  RequestFields fields(object);
  fields.Bool("b");
  fields.Bool("a");
  fields.Fail({.status = 404, .message = "other", .param = "c"});
  EXPECT_EQ(fields.error()->param, "b");
  EXPECT_EQ(fields.error()->status, 400);
}

TEST(ParseRequestBodyTest, TakesObjectsOnly) {
  EXPECT_FALSE(ParseRequestBody(R"({"a": [1, {"b": null}]})").error);
  for (const std::string& bad :
       {std::string(), std::string("{"), std::string("[]"), std::string("1"), std::string("{} {}"),
        std::string(R"({"a":1,"a":1})"), std::string("{\"a\": \"\xFF\"}"), std::string("{}\0", 3),
        std::string(10'000, '['), "{\"a\":" + std::string(200, '[') + std::string(200, ']') + "}"}) {
    const RequestBody body = ParseRequestBody(bad);
    ASSERT_TRUE(body.error) << bad.substr(0, 40);
    EXPECT_EQ(body.error->status, 400);
    EXPECT_EQ(body.error->code, "invalid_json");
  }
}

/// What messages become, as JSON; the error's field where there is one.
std::string Messages(std::string_view list) {
  const json::object object = Object(fmt::format(R"({{"messages": {}}})", list));
  RequestFields fields(object);
  const auto messages = ReadMessages(fields, "messages");
  EXPECT_EQ(messages.has_value(), fields.ok());
  return messages ? json::serialize(*messages) : fields.error()->param;
}

TEST(ReadMessagesTest, AsTemplatesTakeThem) {
  EXPECT_EQ(Messages(R"([{"role": "developer", "content": "a"}])"), R"([{"role":"system","content":"a"}])");
  EXPECT_EQ(
      Messages(R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])"),
      R"([{"role":"user","content":"a\nb"}])");
  EXPECT_EQ(Messages(R"([{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f",
                         "arguments": "{\"x\": 1}"}}]}])"),
            R"([{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]}])");
  // What is no object stays the text that it was.
  EXPECT_NE(Messages(R"([{"role": "assistant", "tool_calls": [1, {"function": 2}, {"function": {"arguments": "{"}}]}])")
                .find(R"("arguments":"{")"),
            std::string::npos);
}

TEST(ReadMessagesTest, ErrorsSayWhich) {
  EXPECT_EQ(Messages("[]"), "messages");
  EXPECT_EQ(Messages("1"), "messages");
  EXPECT_EQ(Messages("null"), "messages");
  EXPECT_EQ(Messages(R"([{"role": "user", "content": "a"}, 1])"), "messages[1]");
  EXPECT_EQ(Messages(R"([{"content": "a"}])"), "messages[0].role");
  EXPECT_EQ(Messages(R"([{"role": "robot", "content": "a"}])"), "messages[0].role");
  EXPECT_EQ(Messages(R"([{"role": "user"}])"), "messages[0].content");
  EXPECT_EQ(Messages(R"([{"role": "user", "content": 1}])"), "messages[0].content");
  EXPECT_EQ(Messages(R"([{"role": "user", "content": [{"type": "image_url"}]}])"), "messages[0].content");
  EXPECT_EQ(Messages(R"([{"role": "user", "content": [{"type": "text", "text": 1}]}])"), "messages[0].content");
}

}  // namespace
}  // namespace kvasir::server
