#include "apps/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace kvasir::apps {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

std::vector<int64_t> Tokens(std::string_view text) {
  const auto requests = ParseTrace(text, "t.csv");
  EXPECT_TRUE(requests.ok()) << requests.status().message();
  std::vector<int64_t> tokens;
  if (!requests.ok()) return tokens;
  for (const TraceRequest& request : *requests) {
    tokens.push_back(request.context_tokens);
    tokens.push_back(request.generated_tokens);
  }
  return tokens;
}

std::string ErrorOf(std::string_view text) {
  const auto requests = ParseTrace(text, "t.csv");
  EXPECT_FALSE(requests.ok()) << text;
  return requests.status().message();
}

TEST(Trace, ReadsRowsWhateverEndsTheirLines) {
  const std::vector<int64_t> expected = {374, 44, 396, 109};
  EXPECT_EQ(Tokens(std::string(kHeader) + "2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:50.99,396,109\n"), expected);
  EXPECT_EQ(Tokens("TIMESTAMP,ContextTokens,GeneratedTokens\r\nx,374,44\r\nx,396,109\r\n"), expected);
  EXPECT_EQ(Tokens("TIMESTAMP,ContextTokens,GeneratedTokens\r\nx,374,44\r\nx,396,109"), expected);
  // Columns are found by name.
  EXPECT_EQ(Tokens("GeneratedTokens,a,ContextTokens\n44,,374\n109,b,396\n"), expected);
  EXPECT_EQ(Tokens("ContextTokens,GeneratedTokens\n0,1048576\n1048576,0\n"),
            (std::vector<int64_t>{0, 1048576, 1048576, 0}));
}

TEST(Trace, WrongRowsAreNamedByTheirLine) {
  for (const auto& [row, message] : {
           std::pair<std::string, std::string>{"x,1\n", "t.csv: line 3 has 2 fields, line 1 names 3 columns"},
           {"x,1,2,3\n", "line 3 has 4 fields"},
           {"\n", "line 3 has 1 field,"},
           {"x,,2\n", "line 3: ContextTokens is \"\""},
           {"x,1,-2\n", "line 3: GeneratedTokens is \"-2\""},
           {"x,1.5,2\n", "ContextTokens is \"1.5\""},
           {"x, 1,2\n", "ContextTokens is \" 1\""},
           {"x,0x10,2\n", "ContextTokens is \"0x10\""},
           {"x,1,1048577\n", "GeneratedTokens is \"1048577\", not a whole number from 0 to 1048576"},
           {"x,99999999999999999999999,1\n", "ContextTokens is \"99999999999999999999999\""},
           {"x,0,0\n", "line 3: a request without any tokens"},
           {"x,\"1\",2\n", "ContextTokens is \"\"1\"\""},
       }) {
    EXPECT_THAT(ErrorOf(std::string(kHeader) + "x,1,1\n" + row + "x,1,1\n"), HasSubstr(message)) << row;
  }
  // A NUL byte is a byte like others, and nothing that drives terminals reaches a message; nor does a long field.
  EXPECT_THAT(ErrorOf(std::string(kHeader) + std::string("x,1\0,2\n", 7)), HasSubstr("ContextTokens is \"1^@\""));
  EXPECT_THAT(ErrorOf(std::string(kHeader) + "x,\x1b[31m,2\n"), HasSubstr("\"^[[31m\""));
  EXPECT_LT(ErrorOf(std::string(kHeader) + "x," + std::string(4000, '7') + ",2\n").size(), 200u);
  EXPECT_THAT(ErrorOf(std::string(kHeader) + "x," + std::string(4096, '7')), HasSubstr("line 2 is over 4096 bytes"));
  EXPECT_THAT(ErrorOf(std::string(1 << 20, ',')), HasSubstr("line 1 is over 4096 bytes"));
}

std::vector<double> Times(std::string_view rows) {
  const auto requests = ParseTrace(std::string(kHeader) + std::string(rows), "t.csv", TraceTimes::kNeeded);
  EXPECT_TRUE(requests.ok()) << requests.status().message();
  std::vector<double> times;
  if (!requests.ok()) return times;
  for (const TraceRequest& request : *requests) times.push_back(request.at_s);
  return times;
}

TEST(Trace, TimesCountFromTheFirstRequest) {
  EXPECT_THAT(Times("2023-11-16 18:15:46.6805900,1,1\n2023-11-16 18:15:46.6805900,1,1\n"
                    "2023-11-16 18:15:50.9951690,1,1\n2023-11-17 00:00:00,1,1\n"),
              ::testing::ElementsAre(0.0, 0.0, ::testing::DoubleNear(4.314579, 1e-9),
                                     ::testing::DoubleNear(20653.31941, 1e-7)));
  // Over the end of February of a leap year, with the marks of UTC.
  EXPECT_THAT(Times("2024-02-28T23:59:59Z,1,1\n2024-03-01 00:00:01.5+00:00,1,1\n"),
              ::testing::ElementsAre(0.0, 86402.5));
  EXPECT_THAT(Times("5,1,1\n7.25,1,1\n"), ::testing::ElementsAre(0.0, 2.25));
  // Nobody asked: not looked at.
  EXPECT_EQ(Tokens(std::string(kHeader) + "never,3,4\n"), (std::vector<int64_t>{3, 4}));
}

TEST(Trace, WrongTimesAreNamedByTheirLine) {
  const auto error = [](std::string_view text) {
    const auto requests = ParseTrace(text, "t.csv", TraceTimes::kNeeded);
    EXPECT_FALSE(requests.ok()) << text;
    return requests.status().message();
  };
  for (const char* time : {"", "never", "-1", "nan", "1e300", "2023-11-16", "2023-02-29 00:00:00",
                           "2023-13-01 00:00:00", "2023-11-16 24:00:00", "2023-11-16 18:60:00", "2023-11-16 18:15:60",
                           "2023-11-16 18:15:4", "2023-11-16 18:15:46.", "2023-11-16 18:15:46.1234567890",
                           "2023-11-16 18:15:46+01:00", "0000-11-16 18:15:46", "9999-11-16 18:15:46"}) {
    EXPECT_THAT(error(std::string(kHeader) + "0,1,1\n" + time + ",1,1\n"), HasSubstr("line 3: TIMESTAMP is \""))
        << time;
  }
  EXPECT_THAT(error(std::string(kHeader) + "2,1,1\n1,1,1\n"), HasSubstr("line 3: its time is before"));
  EXPECT_THAT(error("ContextTokens,GeneratedTokens\n1,1\n"), HasSubstr("names no column TIMESTAMP"));
}

TEST(Trace, FilesWithoutRequests) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("t.csv: line 1 names no columns ContextTokens and GeneratedTokens"));
  EXPECT_THAT(ErrorOf(kHeader), HasSubstr("no requests"));
  EXPECT_THAT(ErrorOf("a,b\n1,2\n"), HasSubstr("line 1 names no columns"));
  EXPECT_THAT(ErrorOf("contexttokens,generatedtokens\n1,2\n"), HasSubstr("line 1 names no columns"));

  std::string folder = (std::filesystem::temp_directory_path() / "kvasir-trace-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::filesystem::path file = std::filesystem::path(folder) / "t.csv";
  EXPECT_EQ(ReadTrace(file).status().code(), StatusCode::kNotFound);
  std::ofstream(file).close();
  EXPECT_THAT(ReadTrace(file).status().message(), HasSubstr("the file is empty"));
  std::ofstream(file) << kHeader << "x,3,4\n";
  const auto requests = ReadTrace(file);
  ASSERT_TRUE(requests.ok()) << requests.status().message();
  EXPECT_EQ(requests->front().tokens(), 7);
  EXPECT_FALSE(ReadTrace(folder).ok());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace kvasir::apps
