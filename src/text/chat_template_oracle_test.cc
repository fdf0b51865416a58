// Renderings compared with Hugging Face's (tools/fixtures/make_template_fixtures.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <filesystem>

#include "base/test_paths.h"
#include "io/json.h"
#include "text/chat_template.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(kFixtures) / "chat_template";
constexpr int64_t kNow = 1721997296;  // what strftime_now sees: 2024-07-26 12:34:56 UTC

json::value LoadFixture(const std::string& name) {
  auto value = ParseJsonFile(kFolder / name);
  EXPECT_TRUE(value.ok()) << value.status().message();
  return value.ok() ? *std::move(value) : json::value();
}

std::string_view Text(const json::value& value) { return value.get_string(); }

// FNV-1a, as in the script that wrote the fixture.
std::string Hash(std::string_view text) {
  uint64_t value = 0xCBF29CE484222325;
  for (unsigned char byte : text) value = (value ^ byte) * 0x100000001B3;
  return fmt::format("{:016x}", value);
}

class ChatTemplateOracle : public testing::Test {
 protected:
  void SetUp() override {
    setenv("TZ", "UTC", 1);
    tzset();
    conversations_ = LoadFixture("conversations.json");
    options_.now = kNow;
  }

  // A template that does not compile fails at every rendering, as it does with Hugging Face.
  Result<RenderedChat> Render(const Result<ChatTemplate>& compiled, const json::value& conversation, bool prompt) {
    if (!compiled.ok()) return compiled.status();
    options_.add_generation_prompt = prompt;
    const auto* variables = conversation.get_object().if_contains("variables");
    options_.variables = variables ? variables->get_object() : json::object();
    return compiled->Render(conversation.at("messages").get_array(), options_);
  }

  // Python's own errors have an empty message in the fixtures; those of raise_exception keep theirs.
  static void ExpectError(const Result<RenderedChat>& chat, std::string_view message) {
    ASSERT_FALSE(chat.ok()) << "rendered: " << chat->text;
    if (message.empty()) {
      EXPECT_THAT(chat.status().message(), testing::StartsWith("chat template, line "));
    } else {
      EXPECT_EQ(chat.status().code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(chat.status().message(), message);
    }
  }

  json::value conversations_;
  RenderOptions options_;
};

TEST_F(ChatTemplateOracle, SnippetsRenderAsJinja2DoesThem) {
  const json::value fixture = LoadFixture("snippets.json");
  const json::object conversation = {{"messages", json::array()}, {"variables", fixture.at("variables").at(0)}};
  int texts = 0, errors = 0;
  for (const json::value& entry : fixture.at("cases").get_array()) {
    SCOPED_TRACE(std::string(Text(entry.at("source"))));
    const auto chat = Render(ChatTemplate::Compile(Text(entry.at("source"))), conversation, true);
    const auto* error = entry.get_object().if_contains("error");
    if (error) {
      ++errors;
      // An error without message may also be one of kvasir's: what it does not support is refused, never guessed.
      EXPECT_FALSE(chat.ok()) << "rendered: " << (chat.ok() ? chat->text : "");
      if (!Text(*error).empty()) ExpectError(chat, Text(*error));
    } else {
      ++texts;
      EXPECT_TRUE(chat.ok()) << chat.status().message();
      if (chat.ok()) {
        EXPECT_EQ(chat->text, Text(entry.at("text")));
      }
    }
  }
  EXPECT_GT(texts, 300);
  EXPECT_GT(errors, 100);
}

TEST_F(ChatTemplateOracle, OwnTemplatesOfEveryFamilyRenderAsHuggingFaceDoesThem) {
  const json::value fixture = LoadFixture("own.json");
  options_.bos_token = "<s>";
  options_.eos_token = "</s>";
  size_t templates = 0;
  for (const auto& [name, cases] : fixture.get_object()) {
    ++templates;
    auto source = ReadFile(kFolder / "templates" / std::string(name), 1 << 20);
    ASSERT_TRUE(source.ok()) << source.status().message();
    const auto compiled = ChatTemplate::Compile(*source);
    for (const json::value& entry : cases.get_array()) {
      SCOPED_TRACE(fmt::format("{} conversation {}", std::string(name), entry.at("c").get_int64()));
      const auto chat =
          Render(compiled, conversations_.at(static_cast<size_t>(entry.at("c").get_int64())), entry.at("p").get_bool());
      if (const auto* error = entry.get_object().if_contains("error")) {
        ExpectError(chat, Text(*error));
        continue;
      }
      ASSERT_TRUE(chat.ok()) << chat.status().message();
      EXPECT_EQ(chat->text, Text(entry.at("text")));
    }
  }
  EXPECT_GE(templates, 14u);
}

TEST_F(ChatTemplateOracle, PublishedTemplatesRenderAsHuggingFaceDoesThem) {
  const char* data = getenv("KVASIR_TEST_DATA");
  if (!data) GTEST_SKIP() << "KVASIR_TEST_DATA is not set; the published templates are read from there";
  const json::value fixture = LoadFixture("shared.json");
  options_.bos_token = "<s>";
  options_.eos_token = "</s>";
  for (const auto& [name, cases] : fixture.get_object()) {
    const fs::path path = fs::path(data) / std::string(name);
    auto source = ReadFile(path, 64 << 20);
    ASSERT_TRUE(source.ok()) << source.status().message();
    if (path.extension() == ".json") {
      auto config = ParseJson(*source, path.string());
      ASSERT_TRUE(config.ok()) << config.status().message();
      source = std::string(Text(config->at("chat_template")));
    }
    const auto compiled = ChatTemplate::Compile(*source);
    for (const json::value& entry : cases.get_array()) {
      const json::array& fields = entry.get_array();
      SCOPED_TRACE(fmt::format("{} conversation {}", std::string(name), fields[0].get_int64()));
      const auto chat =
          Render(compiled, conversations_.at(static_cast<size_t>(fields[0].get_int64())), fields[1].get_bool());
      if (fields.size() == 3) {
        ExpectError(chat, Text(fields[2]));
        continue;
      }
      ASSERT_TRUE(chat.ok()) << chat.status().message();
      EXPECT_EQ(chat->text.size(), static_cast<size_t>(fields[2].get_int64())) << chat->text;
      EXPECT_EQ(Hash(chat->text), Text(fields[3])) << chat->text;
    }
  }
}

}  // namespace
}  // namespace kvasir
