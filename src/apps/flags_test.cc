#include "apps/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace kvasir::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

enum class Colour { kRed, kBlue };

struct Values {
  int32_t count = 5;
  std::optional<int64_t> limit;
  float p = 0.5f;
  std::optional<double> temperature;
  Colour colour = Colour::kRed;
  std::string text;
  std::vector<std::string> stop;
  bool stream = true;
  std::optional<bool> special;
  bool help = false;
  FlagTable table;

  Values() {
    table.Group("All");
    table.Int("-n,--count,--n-things", "N", &count, -1, 100, "How many.");
    table.Int("--limit", "N", &limit, 1, 10, "At most.", "none");
    table.Number("--top-p", "P", &p, Range{.min = 0, .max = 1, .open_min = true}, "Nucleus.");
    table.Number("--temp", "X", &temperature, Range{0, 2}, "Heat.", "the model's");
    table.Choice("--colour", &colour, {{"red", Colour::kRed}, {"blue", Colour::kBlue}}, "Colour.");
    table.Text("-p,--prompt", "TEXT", &text, "Text.");
    table.Texts("--stop", "TEXT", &stop, "Ends.");
    table.Switch("--stream", &stream, "Stream.", "--no-stream");
    table.Switch("--special", &special, "Special.", "--no-special", "off");
    table.Switch("-h,--help", &help, "Help.");
  }
  Status Parse(std::vector<std::string> args) { return ParseFlags(table, args); }
};

TEST(Flags, SetsEveryKindByEveryName) {
  Values v;
  ASSERT_TRUE(v.Parse({"-n", "-1", "--limit=3", "--top-p", "0.25", "--temp", "0", "--colour", "blue", "-pHello",
                       "--stop", "a", "--stop", "b", "--no-stream", "--no-special"})
                  .ok());
  EXPECT_EQ(v.count, -1);
  EXPECT_EQ(v.limit, 3);
  EXPECT_EQ(v.p, 0.25f);
  EXPECT_EQ(v.temperature, 0.0);
  EXPECT_EQ(v.colour, Colour::kBlue);
  EXPECT_EQ(v.text, "Hello");
  EXPECT_THAT(v.stop, ElementsAre("a", "b"));
  EXPECT_FALSE(v.stream);
  EXPECT_EQ(v.special, false);
  Values alias;
  ASSERT_TRUE(alias.Parse({"--n-things", "7"}).ok());
  EXPECT_EQ(alias.count, 7);
}

TEST(Flags, KeepsValuesAsTheyWereTyped) {
  for (const std::string text : {"", "-x", "--temp", "[1, 2]", "{}", "a,b", "--", "%%", "\"quoted\"", "a=b", "-n 3"}) {
    Values v;
    ASSERT_TRUE(v.Parse({"--prompt", text}).ok()) << text;
    EXPECT_EQ(v.text, text);
  }
}

TEST(Flags, LastOfRepeatedFlagsWins) {
  Values v;
  ASSERT_TRUE(v.Parse({"-n", "1", "--count", "2", "--stream", "--no-stream", "--stream"}).ok());
  EXPECT_EQ(v.count, 2);
  EXPECT_TRUE(v.stream);
}

TEST(Flags, RefusesWrongValuesNamingFlagValueAndRange) {
  const struct {
    std::vector<std::string> args;
    const char* message;
  } cases[] = {
      {{"-n", "101"}, "--count: 101 is out of range (-1 … 100)"},
      {{"-n", "99999999999999999999999"}, "--count: 99999999999999999999999 is out of range"},
      {{"-n", "1.5"}, "--count: \"1.5\" is not a whole number"},
      {{"-n", ""}, "--count: \"\" is not a whole number"},
      {{"--top-p", "0"}, "--top-p: 0 is out of range (above 0, at most 1)"},
      {{"--top-p", "nan"}, "--top-p: \"nan\" is not a number"},
      {{"--temp", "inf"}, "--temp: inf is out of range (0 … 2)"},
      {{"--temp", "-0.1"}, "--temp: -0.1 is out of range"},
      {{"--temp", "0.5x"}, "--temp: \"0.5x\" is not a number"},
      {{"--colour", "green"}, "--colour: \"green\" is none of red|blue"},
      {{"--stream=maybe"}, "maybe"},
      {{"-n"}, "--count needs a value"},
      {{"stray"}, "unexpected argument \"stray\""},
  };
  for (const auto& c : cases) {
    Values v;
    const Status status = v.Parse(c.args);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.args[0];
    EXPECT_THAT(status.message(), HasSubstr(c.message));
  }
}

TEST(Flags, ReadsNumbersOfBytes) {
  const std::pair<const char*, int64_t> cases[] = {
      {"1", 1},         {"800000000", 800'000'000}, {"800M", 800'000'000},
      {"12kB", 12'000}, {"1.5G", 1'500'000'000},    {"2Gi", int64_t{2} << 30},
      {"0.5KiB", 512},  {"3TB", 3'000'000'000'000}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = internal::ParseBytes(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
  for (const char* text :
       {"", "G", "-1", "0", "0.2", "1X", "1iB", "1GG", "1 G", "1e30", "nan", "inf", "5Gib", "0x10"}) {
    EXPECT_EQ(internal::ParseBytes(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(Flags, NamesTheNearestFlag) {
  Values v;
  EXPECT_EQ(v.Parse({"--tmep", "1"}).message(), "unknown flag --tmep; did you mean --temp?");
  EXPECT_EQ(v.Parse({"--no-strem"}).message(), "unknown flag --no-strem; did you mean --no-stream?");
  EXPECT_EQ(v.Parse({"--special-effects"}).message(), "unknown flag --special-effects");
  EXPECT_EQ(v.Parse({"--top-q=0.5"}).message(), "unknown flag --top-q; did you mean --top-p?");
}

TEST(Flags, EnvironmentSetsWhatTheCommandLineDoesNot) {
  setenv("KVASIR_ARG_COUNT", "9", 1);
  setenv("KVASIR_ARG_TOP_P", "0.75", 1);
  setenv("KVASIR_ARG_STREAM", "0", 1);
  Values v;
  ASSERT_TRUE(v.Parse({"--top-p", "1"}).ok());
  EXPECT_EQ(v.count, 9);
  EXPECT_EQ(v.p, 1.0f);
  EXPECT_FALSE(v.stream);
  setenv("KVASIR_ARG_COUNT", "many", 1);
  Values wrong;
  EXPECT_THAT(wrong.Parse({}).message(), HasSubstr("KVASIR_ARG_COUNT: \"many\" is not a whole number"));
  // An alias has its own variable.
  unsetenv("KVASIR_ARG_COUNT");
  setenv("KVASIR_ARG_N_THINGS", "8", 1);
  Values alias;
  ASSERT_TRUE(alias.Parse({}).ok());
  EXPECT_EQ(alias.count, 8);
  for (const char* name : {"KVASIR_ARG_N_THINGS", "KVASIR_ARG_TOP_P", "KVASIR_ARG_STREAM"}) unsetenv(name);
}

TEST(Flags, HelpWinsOverEverythingElse) {
  Values v;
  ASSERT_TRUE(v.Parse({"--count", "nonsense", "--unknown", "--help"}).ok());
  EXPECT_TRUE(v.help);
}

TEST(Flags, HelpShowsNamesDefaultsRangesAndVariables) {
  Values v;
  const std::string help = v.table.Help();
  EXPECT_THAT(help, HasSubstr("-n, --count, --n-things N"));
  EXPECT_THAT(help, HasSubstr("default: 5; -1 … 100; env: KVASIR_ARG_COUNT"));
  EXPECT_THAT(help, HasSubstr("default: the model's; 0 … 2"));
  EXPECT_THAT(help, HasSubstr("--stream, --no-stream"));
  EXPECT_THAT(help, HasSubstr("red|blue"));
  EXPECT_THAT(help, HasSubstr("may be repeated"));
}

TEST(Flags, PositionalArgumentSetsItsFlagOnce) {
  Values v;
  v.table.Positional("--prompt");
  ASSERT_TRUE(v.Parse({"hello"}).ok());
  EXPECT_EQ(v.text, "hello");
  EXPECT_THAT(v.Parse({"one", "two"}).message(), HasSubstr("unexpected argument \"two\""));
}

TEST(Nearest, CountsSwapsAndBeginningsAsOneEdit) {
  const std::vector<std::string> words = {"generate", "chat", "inspect", "bench"};
  EXPECT_EQ(*Nearest("genreate", words), "generate");
  EXPECT_EQ(*Nearest("insp", words), "inspect");
  EXPECT_EQ(*Nearest("cat", words), "chat");
  EXPECT_EQ(Nearest("quantize", words), nullptr);
  EXPECT_EQ(Nearest(std::string(100000, 'x'), words), nullptr);
}

}  // namespace
}  // namespace kvasir::apps
