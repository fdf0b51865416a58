#include "io/json.h"

#include <sys/stat.h>

#include <chrono>
#include <cstdlib>

#include "io/test_files.h"

namespace kvasir {
namespace {

using testing::Fails;
using testing::TempFolder;

Status ParseError(std::string_view text, const JsonLimits& limits = {}) {
  return ParseJson(text, "x.json", limits).status();
}

TEST(JsonTest, ReadsEveryKindOfValue) {
  const auto value = ParseJson(R"( {"a": [1, -2, 1.5, true, false, null, "t"], "b": {"c": {}}, "d": []} )", "x.json");
  ASSERT_TRUE(value.ok()) << value.status().message();
  const json::object& object = value->as_object();
  const json::array& array = object.at("a").as_array();
  EXPECT_EQ(array.at(0).as_int64(), 1);
  EXPECT_EQ(array.at(1).as_int64(), -2);
  EXPECT_EQ(array.at(2).as_double(), 1.5);
  EXPECT_TRUE(array.at(3).as_bool());
  EXPECT_FALSE(array.at(4).as_bool());
  EXPECT_TRUE(array.at(5).is_null());
  EXPECT_EQ(array.at(6).as_string(), "t");
  EXPECT_TRUE(object.at("b").as_object().at("c").as_object().empty());
  EXPECT_TRUE(object.at("d").as_array().empty());
  EXPECT_EQ(object.begin()->key(), "a");  // the text's order is kept
}

TEST(JsonTest, ReadsScalarsAndEscapes) {
  EXPECT_EQ(ParseJson("7", "x")->as_int64(), 7);
  EXPECT_EQ(ParseJson("\"\"", "x")->as_string(), "");
  EXPECT_EQ(ParseJson(R"("\u00e9\ud83d\ude00\n\"\\\/\t")", "x")->as_string(), "é😀\n\"\\/\t");
  EXPECT_EQ(ParseJson(R"({"\u0061b": 1})", "x")->as_object().at("ab").as_int64(), 1);
  EXPECT_EQ(ParseJson(R"("a\u0000b")", "x")->as_string(), json::string_view("a\0b", 3));
}

TEST(JsonTest, RoundsNumbersToTheNearestDouble) {
  // Decimals that a parser with one rounding too many gets wrong.
  for (const char* text :
       {"1e-05", "1e-06", "0.1", "1e23", "8.41", "5e-324", "2.2250738585072011e-308", "1.7976931348623157e308",
        "9007199254740993.0", "7.2057594037927933e16", "-0.0", "0.3", "123456789012345678901234567890.5e3",
        "-9.313225746154785e-10", "3.518437208883201171875e13", "62.5364939768271845828e0", "1e-400"}) {
    const auto value = ParseJson(text, "x");
    ASSERT_TRUE(value.ok()) << text;
    EXPECT_EQ(value->as_double(), std::strtod(text, nullptr)) << text;
    const auto in_array = ParseJson(fmt::format("[{}, 1]", text), "x");
    EXPECT_EQ(in_array->as_array().at(0).as_double(), std::strtod(text, nullptr)) << text;
  }
}

TEST(JsonTest, KeepsLargeIntegersExact) {
  EXPECT_EQ(ParseJson("9223372036854775807", "x")->as_int64(), INT64_MAX);
  EXPECT_EQ(ParseJson("-9223372036854775808", "x")->as_int64(), INT64_MIN);
  EXPECT_EQ(ParseJson("18446744073709551615", "x")->as_uint64(), UINT64_MAX);
  EXPECT_EQ(ParseJson("18446744073709551616", "x")->as_double(), 18446744073709551616.0);
}

TEST(JsonTest, RefusesNumbersThatAreNotFinite) {
  EXPECT_TRUE(Fails(ParseError("[NaN]"), {"x.json", "line 1, column 2", "NaN and Infinity are no JSON numbers"}));
  EXPECT_TRUE(Fails(ParseError("[Infinity]"), {"NaN and Infinity"}));
  EXPECT_TRUE(Fails(ParseError("[-Infinity]"), {"NaN and Infinity"}));
  EXPECT_TRUE(Fails(ParseError("[1e400]"), {"1e400", "does not fit a double"}));
  EXPECT_TRUE(Fails(ParseError("-1e999"), {"does not fit a double"}));
}

TEST(JsonTest, RefusesDuplicateKeysWhereTheyStand) {
  EXPECT_TRUE(Fails(ParseError("{\n\"a\": 1,\n\"a\": 2}"), {"x.json: line 3", "\"a\" stands twice"}));
  EXPECT_TRUE(Fails(ParseError(R"({"ab": 1, "a\u0062": 2})"), {"\"ab\" stands twice"}));
  EXPECT_TRUE(Fails(ParseError(R"({"": 1, "": 2})"), {"stands twice"}));
  EXPECT_TRUE(Fails(ParseError(R"([{"x": {"k": [], "k": {}}}])"), {"\"k\" stands twice"}));
  EXPECT_TRUE(ParseJson(R"({"a": {"a": 1}, "b": {"a": 1}})", "x").ok());
  const std::string longest(10000, 'k');
  const Status status = ParseError(fmt::format(R"({{"{0}": 1, "{0}": 2}})", longest));
  EXPECT_TRUE(Fails(status, {"kkkk…"}));
  EXPECT_LT(status.message().size(), 300u);
}

TEST(JsonTest, RefusesWhatIsNoJson) {
  EXPECT_TRUE(Fails(ParseError(""), {"x.json", "empty"}));
  EXPECT_TRUE(Fails(ParseError(" \n\t"), {"empty"}));
  EXPECT_TRUE(Fails(ParseError("\xEF\xBB\xBF{}"), {"byte order mark"}));
  EXPECT_TRUE(Fails(ParseError("[1, 2] x"), {"column 8 (byte 7)", "text follows after the end"}));
  EXPECT_TRUE(Fails(ParseError("{} {}"), {"text follows"}));
  for (const char* text : {"[1,]",    "{,}",     "[01]",   "[1.]",        "[.5]",
                           "+1",      "[1 2]",   "{1: 2}", "['a']",       "{\"a\" 1}",
                           "// c\n1", "\"\\x\"", "\"\t\"", "\"\\ud800\"", "\"\\udc00\\ud800\"",
                           "nul",     "TRUE",    "]",      "[}",          "\\"}) {
    EXPECT_TRUE(Fails(ParseError(text), {"x.json: line 1", "byte"})) << text;
  }
}

TEST(JsonTest, RefusesInvalidUtf8) {
  for (const char* text : {"[\"\xff\"]", "[\"a\xc3\"]", "[\"\xed\xa0\x80\"]", "[\"\xc0\xaf\"]",
                           "[\"\xf4\x90\x80\x80\"]", "{\"\x80\": 1}", "[\xe4\xb8\xad\xff]"}) {
    EXPECT_FALSE(ParseJson(text, "x").ok()) << text;
  }
  EXPECT_TRUE(Fails(ParseError("[\n\"ab\xff\"]"), {"line 2, column 4 (byte 5)", "not valid UTF-8"}));
  EXPECT_TRUE(Fails(ParseError("\"中\xff\""), {"not valid UTF-8"}));
  EXPECT_TRUE(ParseJson("\"中😀é\"", "x").ok());
}

TEST(JsonTest, EveryPrefixIsAnErrorThatSaysSo) {
  const std::string text = R"({"a": [1, -2.5e3, true, null, "t\u00e9é"], "b": {"c": {"d": []}}})";
  ASSERT_TRUE(ParseJson(text, "x").ok());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_TRUE(Fails(ParseError(text.substr(0, size)), {"x.json"})) << size;
  }
  EXPECT_TRUE(Fails(ParseError("[1, 2"), {"the file may be truncated"}));
}

TEST(JsonTest, BoundsDepthSizeAndNumberOfValues) {
  const std::string deep = std::string(64, '[') + std::string(64, ']');
  EXPECT_TRUE(ParseJson(deep, "x").ok());
  EXPECT_TRUE(Fails(ParseError("[" + deep + "]"), {"x.json", "nested more than 64 levels"}));
  EXPECT_TRUE(Fails(ParseError(std::string(1 << 20, '[')), {"nested more than 64 levels"}));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_TRUE(Fails(ParseError(objects), {"nested more than 64 levels"}));
  JsonLimits limits;
  limits.max_bytes = 10;
  EXPECT_TRUE(Fails(ParseError("[1,2,3,4,5]", limits), {"11 bytes", "the limit is 10"}));
  EXPECT_TRUE(ParseJson("[1,2,3,45]", "x", limits).ok());
  limits = {};
  limits.max_values = 4;
  EXPECT_TRUE(ParseJson("[1,2,3]", "x", limits).ok());
  EXPECT_TRUE(Fails(ParseError("[1,2,3,4]", limits), {"more values"}));
  EXPECT_TRUE(Fails(ParseError("{\"a\":{\"a\":[[[]]]}}", limits), {"more values"}));
}

TEST(JsonTest, LargeVocabulariesParseInLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 300000; ++i) text += fmt::format("\"token{}\":{},", i, i);
  text += "\"last\":[";
  for (int i = 0; i < 300000; ++i) text += fmt::format("[\"a{}\",\"b{}\"],", i, i);
  text += "0]}";
  const auto start = std::chrono::steady_clock::now();
  const auto value = ParseJson(text, "x");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(value.ok()) << value.status().message();
  EXPECT_EQ(value->as_object().size(), 300001u);
  EXPECT_LT(seconds, 20.0);  // quadratic search for duplicates would take minutes
  text.insert(1, "\"token299999\":0,");
  EXPECT_TRUE(Fails(ParseError(text), {"\"token299999\" stands twice"}));
}

TEST(ReadFileTest, ReadsWholeFilesUpToTheLimit) {
  const TempFolder folder;
  const auto path = folder.Write("a.txt", std::string("ab\0c", 4));
  EXPECT_EQ(*ReadFile(path, 4), std::string("ab\0c", 4));
  EXPECT_EQ(*ReadFile(folder.Write("empty.txt", ""), 0), "");
  EXPECT_TRUE(Fails(ReadFile(path, 3).status(), {"a.txt", "4 bytes long", "the limit is 3"}));
  // A file that says it is empty but is not (procfs) still ends at the limit.
  EXPECT_TRUE(Fails(ReadFile("/proc/self/maps", 8).status(), {"limit of 8 bytes"}));
}

TEST(ReadFileTest, RefusesWhatIsNoFile) {
  const TempFolder folder;
  const Status missing = ReadFile(folder.path() / "no.txt", 10).status();
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_TRUE(Fails(missing, {"no.txt", "no such file"}));
  EXPECT_TRUE(Fails(ReadFile(folder.path(), 10).status(), {"a directory"}));
  EXPECT_TRUE(Fails(ReadFile("/dev/zero", 10).status(), {"a device"}));
  const auto pipe = folder.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_TRUE(Fails(ReadFile(pipe, 10).status(), {"pipe"}));  // and does not wait for a writer
}

TEST(ReadFileTest, JsonFileErrorsNameTheFile) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(ParseJsonFile(folder.Write("bad.json", "{\"a\": }")).status(), {"bad.json: line 1, column 7"}));
  JsonLimits limits;
  limits.max_bytes = 8;
  EXPECT_TRUE(Fails(ParseJsonFile(folder.Write("long.json", "[1,2,3,4,5]"), limits).status(), {"long.json", "limit"}));
  EXPECT_EQ(ParseJsonFile(folder.Write("good.json", "[1]\n"))->as_array().size(), 1u);
}

}  // namespace
}  // namespace kvasir
