// A chat template with what it needs around it.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "text/chat_template.h"

namespace kvasir {

struct ChatPromptOptions {
  /// Special tokens written in messages are read as such, as Hugging Face does; else they are plain text.
  bool parse_special = false;
  bool add_generation_prompt = true;
  boost::json::object variables;  // RenderOptions'
};

/// How messages become a prompt: by the model's own template, a built-in one, or a file's. Immutable; thread-safe.
class ChatFormat {
 public:
  /// `choice`: empty for the model's own template, "chatml", or a file of Jinja source. A model without a template
  /// is an error (NotFound) that says what to give. REQUIRES: the engine outlives this.
  static Result<ChatFormat> Make(Engine& engine, const std::string& choice);

  /// The conversation as text, followed by the beginning of an answer. messages: [{"role", "content", …}, …].
  Result<RenderedChat> Render(const boost::json::array& messages, const ChatPromptOptions& options) const;

  /// The same in ids.
  Result<std::vector<TokenId>> Encode(const boost::json::array& messages, const ChatPromptOptions& options) const;

  /// Texts that end an answer although the vocabulary may not know them as one token.
  const std::vector<std::string>& stop() const { return stop_; }

  /// The template's source.
  const std::string& source() const { return source_; }

 private:
  ChatFormat() = default;
  const Tokenizer* tokenizer_ = nullptr;
  const ChatTemplate* model_template_ = nullptr;  // the engine's
  std::optional<ChatTemplate> own_;
  RenderOptions options_;
  std::vector<std::string> stop_;
  std::string source_;
};

}  // namespace kvasir
