// The demonstration model and events, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "base/test_paths.h"
#include "engine/chat_format.h"
#include "engine/engine.h"
#include "io/json.h"
#include "server/completion_call.h"
#include "server/generation_stream.h"

namespace kvasir::server {

inline json::value Parsed(std::string_view text) {
  auto parsed = ParseJson(text, "test");
  EXPECT_TRUE(parsed.ok()) << text;
  return parsed.ok() ? *std::move(parsed) : json::value();
}

/// A token of a text; which one does not matter.
inline StreamEvent TextEventOf(std::string text) { return {.text = std::move(text), .token = 5, .logprob = -0.5f}; }
/// The last one, without a text.
inline StreamEvent EndOf(FinishReason finish) { return {.finish = finish}; }

/// The demonstration model with a chat template that knows tools, and names that requests may ask for.
class ServedDemo {
 public:
  ServedDemo() {
    EngineOptions options;
    options.model = std::filesystem::path(kSourceTree) / "models/demo";
    options.threads = 1;
    auto engine = Engine::Load(options);
    KVASIR_CHECK(engine.ok());
    engine_ = *std::move(engine);
    const std::filesystem::path file =
        std::filesystem::path(testing::TempDir()) / fmt::format("tools-{}.jinja", reinterpret_cast<uintptr_t>(this));
    std::ofstream(file) << "{% if tools %}{{ tools | tojson }}{% endif %}"
                           "{% for message in messages %}{{ message.role }}: {{ message.content }}"
                           "{% if message.tool_calls %}<tool_call>{{ message.tool_calls | tojson }}{% endif %}"
                           "{% endfor %}";
    auto chat = ChatFormat::Make(*engine_, file.string());
    std::filesystem::remove(file);
    KVASIR_CHECK(chat.ok());
    chat_ = *std::move(chat);
    auto tokens = engine_->token_trie();
    KVASIR_CHECK(tokens.ok());
    tokens_ = *std::move(tokens);
  }

  ModelContext context() const {
    return {.engine = *engine_,
            .tokenizer = engine_->tokenizer(),
            .chat = &*chat_,
            .no_chat = {},
            .tokens = tokens_,
            .names = {"demo", "group/other:7b"}};
  }

  std::string Text(const std::vector<TokenId>& ids) const { return *engine_->tokenizer()->Decode(ids); }

  static const ServedDemo& Get() {
    static const ServedDemo demo;
    return demo;
  }

 private:
  std::unique_ptr<Engine> engine_;
  std::optional<ChatFormat> chat_;
  std::shared_ptr<const TokenTrie> tokens_;
};

}  // namespace kvasir::server
