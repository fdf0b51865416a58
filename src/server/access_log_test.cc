#include "server/access_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "io/json.h"

namespace kvasir::server {
namespace {

json::object LineOf(const HttpRequest& request, bool prompts = false) {
  const std::string line = AccessLog::Line(request, {.status = 200, .bytes = 12}, 1.23456, prompts);
  EXPECT_EQ(line.find_first_of("\n\r\x1B"), line.npos);
  auto value = ParseJson(line, "line");
  EXPECT_TRUE(value.ok()) << line;
  return value->as_object();
}

TEST(AccessLogTest, ALineTellsOfARequest) {
  const json::object line = LineOf({.method = "POST",
                                    .path = "/a",
                                    .query = "b",
                                    .headers = {{"user-agent", "test"}, {"Authorization", "Bearer secret"}},
                                    .body = "private",
                                    .remote = "::1",
                                    .id = "id",
                                    .traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                                    .key_name = "0123456789abcdef"});
  EXPECT_EQ(line.at("method"), "POST");
  EXPECT_EQ(line.at("path"), "/a");
  EXPECT_EQ(line.at("remote"), "::1");
  EXPECT_EQ(line.at("id"), "id");
  EXPECT_EQ(line.at("status"), 200);
  EXPECT_EQ(line.at("bytes"), 12);
  EXPECT_DOUBLE_EQ(line.at("ms").to_number<double>(), 1.235);
  EXPECT_EQ(line.at("key"), "0123456789abcdef");
  EXPECT_EQ(line.at("trace"), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(line.at("agent"), "test");
  const std::string text = json::serialize(line);
  EXPECT_EQ(text.find("private"), text.npos);
  EXPECT_EQ(text.find("secret"), text.npos);
}

TEST(AccessLogTest, ATerminalObeysNothing) {
  // CSI as one character, DEL, a separator of lines, a turn of direction; what comes right before and behind each
  // range.
  const char* const evil = "\u009B31m\u007F\u2028\u202E\u2066 \u00A0\u00E4\u2027\u202F\u206A";
  const std::string line =
      AccessLog::Line({.path = evil, .headers = {{"User-Agent", evil}}}, {.status = 200, .bytes = 12}, 1, false);
  for (const char* character : {"\u009B", "\u007F", "\u2028", "\u202E", "\u2066"}) {
    EXPECT_EQ(line.find(character), line.npos) << line;
  }
  EXPECT_NE(line.find("\\u009b31m\\u007f\\u2028\\u202e\\u2066 \u00A0\u00E4\u2027\u202F\u206A"), line.npos) << line;
  const json::object read = LineOf({.path = evil, .headers = {{"User-Agent", evil}}});
  EXPECT_EQ(read.at("path"), evil);
  EXPECT_EQ(read.at("agent"), evil);
}

TEST(AccessLogTest, WhateverAClientSentStaysInItsString) {
  const std::string evil = "\n{\"status\": 500}\r\n\x1B[2J\"\\\xFF\xC3";
  const json::object line =
      LineOf({.method = evil, .path = evil, .headers = {{"User-Agent", evil}}, .body = evil}, true);
  EXPECT_EQ(line.at("status"), 200);
  for (const char* name : {"method", "path", "agent", "body"}) {
    EXPECT_EQ(line.at(name), "\n{\"status\": 500}\r\n\x1B[2J\"\\\xEF\xBF\xBD\xEF\xBF\xBD") << name;
  }
  const json::object cut = LineOf({.headers = {{"User-Agent", std::string(255, 'a') + "\xC3\xA4"}}});
  EXPECT_EQ(json::value_to<std::string>(cut.at("agent")), std::string(255, 'a') + "\xEF\xBF\xBD");
  EXPECT_FALSE(LineOf({}).contains("agent"));
}

class LogFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "kvasir-log-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static void WriteLines(const AccessLogOptions& options, int count) {
    auto log = AccessLog::Open(options);
    ASSERT_TRUE(log.ok()) << log.status().message();
    for (int i = 0; i < count; ++i) (*log)->Write({.path = "/" + std::to_string(i)}, {.status = 200}, 1);
  }

  std::filesystem::path folder_;
};

TEST_F(LogFileTest, AllLinesAreThereWhenItIsClosed) {
  const std::string file = folder_ / "log";
  WriteLines({.file = file}, 500);
  WriteLines({.file = file}, 500);
  const auto text = ReadFile(file, 1 << 20);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(std::ranges::count(*text, '\n'), 1000);
  WriteLines({.enabled = false, .file = folder_ / "other"}, 1);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other"));
}

TEST_F(LogFileTest, AFileThatCannotBeOpened) {
  const auto log = AccessLog::Open({.file = folder_ / "none" / "log"});
  ASSERT_FALSE(log.ok());
  EXPECT_EQ(log.status().code(), StatusCode::kIoError);
  EXPECT_NE(log.status().message().find("none"), std::string::npos);
}

TEST_F(LogFileTest, NobodyIsKeptByAPipeThatIsNotReadOrAFullDisk) {
  const std::string pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  WriteLines({.file = pipe}, 5000);  // far more than it holds
  std::string some(1 << 16, '\0');
  const ssize_t count = read(reader, some.data(), some.size());
  ASSERT_GT(count, 0);
  EXPECT_EQ(some.substr(0, 9), "{\"time\":\"");
  close(reader);
  WriteLines({.file = "/dev/full"}, 100);
}

}  // namespace
}  // namespace kvasir::server
