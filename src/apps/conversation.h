// A conversation: its messages, how they become a prompt, and its file.
#pragma once

#include <boost/json/array.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "text/chat_template.h"

namespace kvasir::apps {

struct Message {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
};

/// A chat template with what it needs around it: the model's own, a built-in one, or a file's.
class ChatFormat {
 public:
  /// `choice`: empty for the model's own template, "chatml", or a file of Jinja source. A model without a template
  /// is an error that says what to give. REQUIRES: the engine has a tokenizer and outlives this.
  static Result<ChatFormat> Make(Engine& engine, const std::string& choice);

  /// Ids of the conversation, followed by the beginning of an answer. Special tokens written in messages are plain
  /// text unless `parse_special` is set, which is Hugging Face's behaviour.
  Result<std::vector<TokenId>> Render(const std::vector<Message>& messages, bool parse_special) const;

  /// Texts that end an answer although the vocabulary may not know them as one token.
  const std::vector<std::string>& stop() const { return stop_; }

 private:
  ChatFormat() = default;
  const Tokenizer* tokenizer_ = nullptr;
  const ChatTemplate* model_template_ = nullptr;  // the engine's
  std::optional<ChatTemplate> own_;
  RenderOptions options_;
  std::vector<std::string> stop_;
};

/// {"messages": [{"role", "content"}, …]}.
boost::json::object ConversationJson(const std::vector<Message>& messages);
/// The messages of such an object; everything about it is checked. `what` names it in errors.
Result<std::vector<Message>> ParseConversation(const boost::json::value& document, const std::string& what);

/// Writes {"messages": [{"role", "content"}, …]} beside `file` and renames it over: the old file stays whole on errors.
Status SaveConversation(const std::filesystem::path& file, const std::vector<Message>& messages);

/// Reads such a file; everything about it is checked.
Result<std::vector<Message>> LoadConversation(const std::filesystem::path& file);

}  // namespace kvasir::apps
