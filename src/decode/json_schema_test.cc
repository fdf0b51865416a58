// Which texts a schema allows, and which schemas are refused.
#include "decode/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "decode/json_testing.h"

namespace kvasir {
namespace {

using testing::Accepts;
using testing::ForSchema;
using ::testing::HasSubstr;
using testing::Read;
using testing::Verdict;

struct Case {
  std::string schema;
  std::vector<std::string> good;
  std::vector<std::string> bad;
};

void Check(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    for (const std::string& text : c.good) EXPECT_TRUE(Accepts(c.schema, text)) << c.schema << "\n" << text;
    for (const std::string& text : c.bad) EXPECT_FALSE(Accepts(c.schema, text)) << c.schema << "\n" << text;
  }
}

TEST(JsonSchemaTest, Scalars) {
  Check({{R"({"type":"null"})", {"null", " null"}, {"nul", "nulll", "\"null\"", "  null", "null "}},
         {R"({"type":"boolean"})", {"true", "false"}, {"1", "True"}},
         {R"({"type":"integer"})",
          {"0", "-7", "12", "999999999999999999"},
          {"01", "1.0", "+1", "1e3", "1000000000000000000"}},
         {R"({"type":"number"})",
          {"0", "-0.5", "1e9", "1.25E-07", "12"},
          {".5", "1.", "1e", "00", "NaN", "1e100", "-", "0x1"}},
         {R"({"type":["integer","null"]})", {"3", "null"}, {"3.5", "true"}},
         {R"({"enum":["a","ab",1,12,null,{"x":[1,2]}]})",
          {"\"a\"", "\"ab\"", "1", "12", "null", R"({"x":[1,2]})"},
          {"\"abc\"", "2", "\"\"", "a"}},
         {R"({"type":"string","enum":["a",1]})", {"\"a\""}, {"1"}},
         {R"({"const":"ä\n\"\u0001"})", {R"("ä\n\"\u0001")"}, {R"("a")"}},
         {R"({"const":-1.5})", {"-1.5"}, {"1.5"}},
         {"true", {"1", "[]", "{\"a\":null}", "\"x\""}, {"tru", "]"}}});
}

TEST(JsonSchemaTest, StringsAreUtf8WithProperEscapes) {
  Check(
      {{R"({"type":"string"})",
        {R"("")", R"("a b")", R"("\"\\\/\b\f\n\r\t")", R"("\u00e9\uD834\uDD1E")", "\"é€𝄞\"", "\"\x7f\"", R"("\ud7ff")"},
        {R"(")", R"("\x")", R"("\u12g4")", "\"\n\"", "\"\x1f\"", R"("\uD834")", R"("\uDD1E")", R"("\uD834\u0041")",
         "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xff\"", "\"\x80\"", R"("a"b)", R"('a')"}},
       {R"({"type":"string","minLength":2,"maxLength":3})",
        {R"("ab")", R"("abc")", "\"€€\"", R"("\n\u0041")", R"("\uD834\uDD1Eé\\")"},
        {R"("a")", R"("abcd")", R"("\uD834\uDD1E")", "\"€\""}},
       {R"({"type":"string","minLength":3})", {R"("abc")", R"("abcdefgh")"}, {R"("ab")"}},
       {R"({"type":"string","maxLength":0})", {R"("")"}, {R"("a")"}}});
}

TEST(JsonSchemaTest, RangesOfNumbers) {
  Check(
      {{R"({"type":"integer","minimum":-12,"maximum":105})",
        {"-12", "-1", "0", "9", "99", "100", "105"},
        {"-13", "106", "-120", "1000", "-0", "1.5"}},
       {R"({"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":5})", {"4"}, {"3", "5", "45"}},
       {R"({"type":"number","minimum":0.25,"maximum":1.5})",
        {"0.25", "0.250", "0.3", "1", "1.5", "1.50", "1.49999"},
        {"0.24", "0", "1.51", "2", "15", "1.500001", "1e0", "-1"}},
       {R"({"type":"number","exclusiveMinimum":0})", {"0.00001", "1", "999"}, {"0", "0.0", "-1", "-0.1"}},
       {R"({"type":"number","exclusiveMaximum":0})", {"-0.5", "-3"}, {"0", "-0", "-0.0", "1"}},
       {R"({"type":"number","minimum":-1.5,"exclusiveMaximum":10})", {"-1.5", "-1.4", "9.99", "0.0"}, {"-1.51", "10"}},
       {R"({"type":"integer","minimum":0,"multipleOf":7})", {"0", "7", "14", "700"}, {"1", "15", "-7"}},
       {R"({"type":"integer","minimum":3,"exclusiveMinimum":5})", {"6"}, {"5", "4"}},
       {R"({"type":"integer","minimum":1e2})", {"100", "1234"}, {"99"}}});
}

TEST(JsonSchemaTest, ObjectsHaveTheirPropertiesInOrder) {
  const std::string two = R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},)"
                          R"("required":["a","b"],"additionalProperties":false})";
  Check({{two,
          {R"({"a":1,"b":"x"})", R"({ "a": 1, "b": "x" })", "{\n  \"a\": 1,\n  \"b\": \"x\"\n}",
           "{\n\t\"a\":1,\n\t\"b\":\"\"}"},
          {R"({"a":1})", R"({"b":"x","a":1})", R"({"a":1,"b":"x","c":1})", R"({"a" :1,"b":"x"})", R"({"a":1 ,"b":"x"})",
           R"({"a":1,"b":"x",})", R"({"a":1,"a":1,"b":""})", R"({  "a":1,"b":"x"})", R"({"\u0061":1,"b":"x"})"}},
         {R"({"type":"object","properties":{"a":{"type":"integer"},"ab":{"type":"integer"},"c":{"type":"integer"}},)"
          R"("required":["ab"]})",
          {R"({"ab":1})", R"({"a":1,"ab":2})", R"({"a":1,"ab":2,"c":3})", R"({"ab":2,"c":3})"},
          {R"({})", R"({"a":1})", R"({"a":1,"c":3})", R"({"c":3,"ab":2})", R"({"ab":1,"d":2})", R"({"ab":2,"a":1})"}},
         {R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"boolean"}})",
          {R"({})", R"({"a":1})", R"({"b":true})", R"({"a":1,"b":true,"ab":false})", R"({"":true})", R"({"\n":true})",
           R"({"b\u0061":true})"},
          {R"({"a":true})", R"({"b":1})", R"({"b":true,"a":1})", R"({"\u0061":true})", R"({"a":1,"a":true})"}},
         {R"({"type":"object"})", {"{}", R"({"x":[{}],"y":{"z":null}})", "{ }"}, {"[]", "{", R"({"x"})", R"({1:2})"}},
         {R"({"type":"object","required":["x"]})", {R"({"x":1})", R"({"x":1,"y":2})"}, {"{}", R"({"y":2})"}},
         {R"({"type":"object","properties":{},"additionalProperties":false})", {"{}"}, {R"({"a":1})"}},
         {R"({"properties":{"a b\"/":true}})", {R"({"a b\"/":3})"}, {"3"}}});
}

TEST(JsonSchemaTest, Arrays) {
  Check({{R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
          {"[1]", "[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]"},
          {"[]", "[1,2,3,4]", "[1,]", "[\"a\"]", "[1 2]"}},
         {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
          {"[]", "[1]", "[1,\"a\"]"},
          {"[\"a\"]", "[1,\"a\",2]"}},
         {R"({"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"boolean"},"minItems":2})",
          {"[1,true]", "[1,true,false]"},
          {"[1]", "[]", "[1,2]", "[true,true]"}},
         {R"({"type":"array","maxItems":0})", {"[]", "[ ]"}, {"[1]"}},
         {R"({"type":"array","items":{"type":"array","items":{"type":"null"}}})", {"[[],[null]]"}, {"[null]"}},
         {R"({"type":"array"})", {"[]", "[1,\"a\",[{}]]"}, {"["}}});
}

TEST(JsonSchemaTest, AlternativesAndReferences) {
  Check(
      {{R"({"anyOf":[{"type":"string"},{"type":"integer","minimum":5},{"type":"object","properties":{"a":{}}}]})",
        {"\"x\"", "6", R"({"a":[]})"},
        {"4", "null", "[]"}},
       {R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},)"
        R"({"type":"null"}]}},"required":["v","next"]}},"$ref":"#/$defs/n"})",
        {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
        {R"({"v":1})", "null"}},
       {R"({"definitions":{"a/b~c":{"enum":[1]}},"allOf":[{"$ref":"#/definitions/a~1b~0c"}]})", {"1"}, {"2"}},
       {R"({"type":"object","properties":{"c":{"type":"array","items":{"$ref":"#"}}},"required":["c"]})",
        {R"({"c":[]})", R"({"c":[{"c":[]},{"c":[]}]})"},
        {R"({"c":[1]})"}}});
}

TEST(JsonSchemaTest, PatternsAndFormats) {
  Check(
      {{R"({"type":"string","pattern":"^[a-c]+\\d{2,3}$"})",
        {"\"a12\"", "\"abc123\""},
        {"\"a1\"", "\"12\"", "\"a1234\"", "\"xa12\""}},
       {R"({"type":"string","pattern":"b+"})", {"\"b\"", "\"abba\"", "\"é\\nb\""}, {"\"a\"", "\"\""}},
       {R"({"type":"string","pattern":"^(ab|c)?$"})", {"\"\"", "\"ab\"", "\"c\""}, {"\"abc\""}},
       {R"({"type":"string","pattern":"^a|b$"})", {"\"ax\"", "\"xb\""}, {"\"xa\"", "\"bx\""}},
       {R"({"type":"string","pattern":"^[^\"x]$"})", {"\"a\"", "\"€\"", "\"\\\\\""}, {"\"x\"", "\"\\\"\"", "\"ab\""}},
       {R"({"type":"string","pattern":"^\\w+@\\w+\\.(com|org)$","maxLength":9})",
        {"\"a@b.com\"", "\"abc@d.org\""},
        {"\"abc@de.org\"", "\"@b.com\""}},
       {R"({"type":"string","pattern":"^[а-я]{2}.$"})", {"\"да!\"", "\"бы€\""}, {"\"да\"", "\"ab!\""}},
       {R"({"type":"string","format":"date"})",
        {"\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\""},
        {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"2023-1-01\""}},
       {R"({"type":"string","format":"date-time"})",
        {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.123+05:30\""},
        {"\"2024-01-01\"", "\"2024-01-01T24:00:00Z\"", "\"2024-01-01T00:00:00\""}},
       {R"({"type":"string","format":"time"})", {"\"12:30:00Z\""}, {"\"12:30Z\""}},
       {R"({"type":"string","format":"duration"})",
        {"\"P1Y2M3DT4H5M6S\"", "\"PT5M\"", "\"P3W\""},
        {"\"P\"", "\"PT\"", "\"P1S\""}},
       {R"({"type":"string","format":"ipv4"})",
        {"\"0.0.0.0\"", "\"255.249.199.9\""},
        {"\"256.1.1.1\"", "\"1.1.1\"", "\"01.1.1.1\""}},
       {R"({"type":"string","format":"ipv6"})",
        {"\"::\"", "\"::1\"", "\"1::\"", "\"fe80::1:2\"", "\"1:2:3:4:5:6:7:8\""},
        {"\":\"", "\"1:2:3:4:5:6:7:8:9\"", "\"1::2::3\"", "\"12345::\"", "\"1:2:3:4:5:6:7\""}},
       {R"({"type":"string","format":"uuid"})", {"\"123e4567-e89b-12d3-a456-426614174000\""}, {"\"123e4567\""}},
       {R"({"type":"string","format":"email"})", {"\"a.b+c@d-e.org\""}, {"\"a@\"", "\"@b\"", "\"a@-b\"", "\"a b@c\""}},
       {R"({"type":"string","format":"hostname"})", {"\"a\"", "\"a-b.c9\""}, {"\"-a\"", "\"a.\"", "\"a_b\""}}});
}

TEST(JsonSchemaTest, TextsEndAndCannotGoOnForEver) {
  const auto object = MakeJsonConstraint(JsonObjectGrammar(), testing::Vocabulary());
  EXPECT_EQ(Read(*object, "{"), Verdict::kUnfinished);
  EXPECT_EQ(Read(*object, "{}"), Verdict::kMustEnd);
  EXPECT_EQ(Read(*object, "[]"), Verdict::kRefused);
  EXPECT_EQ(Read(*object, "{\n" + std::string(32, ' ') + "}"), Verdict::kMustEnd);
  EXPECT_EQ(Read(*object, "{\n" + std::string(33, ' ')), Verdict::kRefused);
  EXPECT_EQ(Read(*object, "{\n" + std::string(16, '\t') + "}"), Verdict::kMustEnd);
  EXPECT_EQ(Read(*object, "{\n" + std::string(17, '\t')), Verdict::kRefused);
  EXPECT_EQ(Read(*object, "{\n\n"), Verdict::kRefused);
  const auto number = ForSchema(R"({"type":"integer"})");
  EXPECT_EQ(Read(*number, "12"), Verdict::kMayEnd);
  EXPECT_EQ(Read(*number, std::string(18, '1')), Verdict::kMustEnd);
}

TEST(JsonSchemaTest, DepthIsBoundedAndNeverADeadEnd) {
  const auto nested = [](int depth, std::string_view inner) {
    return std::string(static_cast<size_t>(depth), '[') + std::string(inner) +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(Accepts("true", nested(64, "")));
  EXPECT_FALSE(Accepts("true", nested(65, "")));
  EXPECT_TRUE(Accepts("true", nested(63, "1")));
  EXPECT_TRUE(ParseJson(nested(64, ""), "text").ok());
  // A value that takes two levels more is not begun where only one is left.
  const std::string list =
      R"({"anyOf":[{"type":"array","items":{"$ref":"#"},"maxItems":1},)"
      R"({"type":"object","properties":{"a":{"type":"array","minItems":1,"items":{"type":"null"}}},)"
      R"("required":["a"]}]})";
  EXPECT_TRUE(Accepts(list, nested(61, R"({"a":[null]})")));
  const auto constraint = ForSchema(list);
  EXPECT_EQ(Read(*constraint, std::string(62, '[') + "{"), Verdict::kRefused);
  EXPECT_EQ(Read(*constraint, std::string(64, '[')), Verdict::kUnfinished);
}

Status Error(std::string_view schema) {
  const auto start = std::chrono::steady_clock::now();
  const auto grammar = CompileJsonSchemaText(schema, "schema");
  EXPECT_FALSE(grammar.ok()) << schema.substr(0, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  return grammar.ok() ? OkStatus() : grammar.status();
}

TEST(JsonSchemaTest, WhatIsNotUnderstoodIsRefusedWithItsPlace) {
  const std::pair<std::string, std::string> cases[] = {
      {R"({"type":"object","properties":{"a":{"type":"object","patternProperties":{}}}})",
       "schema at #/properties/a: \"patternProperties\" is not supported"},
      {R"({"oneOf":[{"type":"string"}]})", "\"anyOf\" is"},
      {R"({"not":{}})", "\"not\""},
      {R"({"type":"array","uniqueItems":true})", "\"uniqueItems\""},
      {R"({"type":"array","items":[{}]})", "\"prefixItems\" is"},
      {R"({"anyOf":[{"type":"strin"}]})", "schema at #/anyOf/0: \"type\" must be"},
      {R"({"anyOf":[]})", "\"anyOf\""},
      {R"({"anyOf":[{}],"type":"object"})", "\"type\" beside \"anyOf\""},
      {R"({"allOf":[{},{}]})", "several"},
      {R"({"type":"string","format":"uri"})", "these are: date-time"},
      {R"s({"type":"string","pattern":"(?=a)"})s", "character 3"},
      {R"({"type":"string","pattern":"\\bx"})", "\"pattern\""},
      {R"({"type":"string","pattern":"a**"})", "repetition"},
      {R"s({"type":"string","pattern":"(a"})s", "without"},
      {R"({"type":"string","pattern":"^[]$"})", "no text satisfies"},
      {R"({"type":"string","pattern":"^abc$","maxLength":2})", "no text satisfies"},
      {R"({"type":"string","minLength":3,"maxLength":2})", "\"maxLength\" 2 is less"},
      {R"({"type":"string","minLength":-1})", "\"minLength\""},
      {R"({"type":"string","minLength":1.5})", "\"minLength\""},
      {R"({"type":"integer","minimum":3,"maximum":2})", "no text satisfies"},
      {R"({"type":"integer","minimum":1e30})", "no text satisfies"},
      {R"({"type":"integer","minimum":"3"})", "\"minimum\": it must be a number"},
      {R"({"type":"number","multipleOf":0.1})", "\"multipleOf\""},
      {R"({"type":"integer","minimum":1,"maximum":3,"multipleOf":7})", "no text satisfies"},
      {R"({"$ref":"#/$defs/x"})", "points to nothing"},
      {R"({"$ref":"http://example.com"})", "points out of the schema"},
      {R"({"$ref":"#a"})", "no JSON pointer"},
      {R"({"$ref":"#"})", "refers to itself"},
      {R"({"anyOf":[{"type":"null"},{"$ref":"#"}]})", "refers to itself"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "contains itself"},
      {R"({"type":"object","properties":{},"additionalProperties":false,"required":["a"]})",
       "\"required\" names \"a\""},
      {R"({"enum":[]})", "\"enum\""},
      {R"({"type":"string","enum":[1]})", "of its type"},
      {R"({"enum":["a"],"minLength":3})", "\"minLength\" beside \"enum\""},
      {R"({"type":[]})", "empty list"},
      {R"(false)", "schema at #: it is false"},
      {R"([])", "a schema is an object"},
      {R"({"type":"array","prefixItems":[{}],"items":false,"minItems":2})", "\"minItems\""},
      {R"({"type":"object","unknown":1})", "\"unknown\" is not supported"}};
  for (const auto& [schema, part] : cases) {
    const Status status = Error(schema);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(part)) << schema;
  }
  EXPECT_TRUE(Accepts(
      R"({"title":"t","description":"d","default":1,"examples":[],"$schema":"s","x-order":1,"type":"null"})", "null"));
  // Keywords for other types say nothing.
  EXPECT_TRUE(Accepts(R"({"type":"null","minLength":3,"format":"int32"})", "null"));
}

std::string Repeat(std::string_view text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

TEST(JsonSchemaTest, HostileSchemasEndSoon) {
  EXPECT_FALSE(CompileJsonSchemaText(Repeat("[", 100'000), "schema").ok());
  std::string many = R"({"enum":[0)";
  for (int i = 1; i <= 6000; ++i) many += fmt::format(",{}", i);
  EXPECT_THAT(Error(many + "]}").message(), HasSubstr("5000"));
  std::string properties = R"({"type":"object","properties":{"p":true)";
  for (int i = 0; i <= 5000; ++i) properties += fmt::format(",\"p{}\":true", i);
  EXPECT_THAT(Error(properties + "}}").message(), HasSubstr("5000"));
  EXPECT_THAT(Error("{\"properties\":{\"" + std::string(2000, 'a') + "\":{}}}").message(), HasSubstr("1024"));
  for (const char* pattern : {"^(a|b)*a(a|b){30}$", "^((a{1000}){1000}){1000}$", "^(((a*)*)*)*b{65535}c{65535}$",
                              "^.{60000}$", "^(.{1,60000}){1,60000}$", "^(a?){5000}a{5000}$", "(x+x+)+y.*(x+x+)+y"}) {
    const std::string schema = fmt::format(R"({{"type":"string","pattern":"{}"}})", pattern);
    const auto start = std::chrono::steady_clock::now();
    const auto grammar = CompileJsonSchemaText(schema, "schema");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << pattern;
    EXPECT_TRUE(grammar.ok() || grammar.status().code() == StatusCode::kInvalidArgument) << pattern;
  }
  EXPECT_THAT(Error(R"({"type":"string","pattern":"^(ab)*$","maxLength":1000000000})").message(), HasSubstr("states"));
  // References that double at each level are one rule each.
  std::string doubling = R"({"$defs":{"d0":{"type":"null"})";
  for (int i = 1; i <= 60; ++i) {
    doubling += fmt::format(
        R"(,"d{0}":{{"type":"array","prefixItems":[{{"$ref":"#/$defs/d{1}"}},{{"$ref":"#/$defs/d{1}"}}]}})", i, i - 1);
  }
  EXPECT_TRUE(Accepts(doubling + R"(},"$ref":"#/$defs/d60"})", "[[],[]]"));
  std::string choices = R"({"$defs":{"d0":{"type":"null"})";
  for (int i = 1; i <= 60; ++i) {
    choices += fmt::format(R"(,"d{0}":{{"anyOf":[{{"$ref":"#/$defs/d{1}"}},{{"$ref":"#/$defs/d{1}"}}]}})", i, i - 1);
  }
  EXPECT_TRUE(Accepts(choices + R"(},"$ref":"#/$defs/d60"})", "null"));
  // Long texts are counted, not written out.
  EXPECT_TRUE(Accepts(R"({"type":"string","maxLength":1000000000})", "\"abc\""));
  EXPECT_FALSE(Accepts(R"({"type":"array","minItems":1000000000})", "[1]"));
}

TEST(JsonSchemaTest, AlternativesThatCannotBeToldApartAreAnError) {
  // Each level doubles the ways in which a text may be read.
  const auto constraint =
      ForSchema(R"({"$defs":{"n":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/n"}},)"
                R"({"type":"array","items":{"$ref":"#/$defs/n"},"maxItems":9}]}},"$ref":"#/$defs/n"})");
  Constraint::State state = constraint->Start();
  Status status;
  for (int i = 0; i < 40 && status.ok(); ++i) {
    const auto next = constraint->Next(state, '[');
    status = next.status();
    if (next.ok()) state = *next;
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("ways at once"));
}

}  // namespace
}  // namespace kvasir
