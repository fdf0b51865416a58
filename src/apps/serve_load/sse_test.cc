#include "apps/serve_load/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace kvasir::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// The events of `text`, as "type=data", fed in pieces of `piece` bytes.
std::vector<std::string> Events(std::string_view text, size_t piece, Status* status = nullptr) {
  std::vector<std::string> events;
  SseParser parser([&](std::string_view type, std::string_view data) {
    events.push_back(std::string(type) + "=" + std::string(data));
    return OkStatus();
  });
  Status result;
  for (size_t i = 0; i < text.size() && result.ok(); i += piece) result = parser.Feed(text.substr(i, piece));
  if (result.ok()) result = parser.End();
  if (status != nullptr) {
    *status = result;
  } else {
    EXPECT_TRUE(result.ok()) << result.message();
  }
  return events;
}

TEST(SseParser, EventsAreTheSameInPiecesOfAnySize) {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    std::string text = "\xef\xbb\xbf";
    for (const std::string line :
         {"data: {\"a\":1}", "", ": a comment", "", "data:two", "data:  lines", "", "", "id: 7", "event: error", "data",
          "", "nonsense: x", "retry: 5", "data: [DONE]", ""}) {
      text += line + end;
    }
    for (size_t piece = 1; piece <= text.size(); ++piece) {
      EXPECT_THAT(Events(text, piece), ElementsAre("={\"a\":1}", "=two\n lines", "error=", "=[DONE]")) << piece;
    }
  }
}

TEST(SseParser, EveryByteOfUtf8Survives) {
  EXPECT_THAT(Events("data: größer – \xf0\x9f\x90\xa6\n\n", 1), ElementsAre("=größer – \xf0\x9f\x90\xa6"));
  // The mark of byte order is one at the very beginning alone.
  EXPECT_THAT(Events("\n\xef\xbb\xbf"
                     "data: x\n\ndata: y\n\n",
                     3),
              ElementsAre("=y"));
}

TEST(SseParser, AnEventThatIsNotFinishedIsAnError) {
  for (const char* text : {"data: x", "data: x\n", "data: x\n\ndata", "data: x\r\n\r\n:"}) {
    Status status;
    Events(text, 2, &status);
    EXPECT_THAT(status.message(), HasSubstr("in the middle of an event")) << text;
  }
  Status status;
  EXPECT_THAT(Events("data: x\n\nevent: y\n", 2, &status), ElementsAre("=x"));
  EXPECT_TRUE(status.ok());
}

TEST(SseParser, WhatIsTooLongOrBinaryIsRefused) {
  Status status;
  Events("data: " + std::string(SseParser::kMaxEvent, 'x'), 65536, &status);
  EXPECT_THAT(status.message(), HasSubstr("over 1048576 bytes"));
  std::string lines;
  while (lines.size() <= SseParser::kMaxEvent + 8192) lines += "data: " + std::string(4000, 'x') + "\n";
  Events(lines, 65536, &status);
  EXPECT_THAT(status.message(), HasSubstr("an event is over 1048576 bytes"));
  Events(std::string_view("data: \0\n\n", 9), 9, &status);
  EXPECT_THAT(status.message(), HasSubstr("NUL"));
}

TEST(SseParser, AnErrorOfTheReceiverEndsTheReading) {
  int calls = 0;
  SseParser parser([&](std::string_view, std::string_view) {
    ++calls;
    return InvalidData("enough");
  });
  EXPECT_EQ(parser.Feed("data: a\n\ndata: b\n\n").message(), "enough");
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace kvasir::apps
