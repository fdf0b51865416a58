#include "engine/chat_format.h"

#include <string_view>
#include <utility>

#include "io/json.h"

namespace kvasir {
namespace {

// https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md
constexpr std::string_view kChatMl =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

std::string PieceOf(const Tokenizer& tokenizer, std::optional<TokenId> id) {
  return id ? std::string(tokenizer.IdToPiece(*id)) : std::string();
}

}  // namespace

Result<ChatFormat> ChatFormat::Make(Engine& engine, const std::string& choice) {
  ChatFormat format;
  format.tokenizer_ = engine.tokenizer();
  if (!format.tokenizer_) return NotFound("this model has no tokenizer, so it cannot chat");
  const VocabInfo& vocab = format.tokenizer_->vocab();
  format.options_.bos_token = PieceOf(*format.tokenizer_, vocab.bos);
  if (!vocab.eos.empty()) format.options_.eos_token = PieceOf(*format.tokenizer_, vocab.eos.front());

  if (choice.empty()) {
    auto own = engine.chat_template();
    if (!own.ok() && own.status().code() == StatusCode::kNotFound) {
      return NotFound(
          "this model has no chat template, so it was probably not trained to converse; give one with --template FILE "
          "(Jinja) or --template chatml, or let it continue a text with kvasir generate");
    }
    if (!own.ok()) return own.status();
    format.model_template_ = *own;
    format.source_ = std::string(format.tokenizer_->chat_template());
    return format;
  }
  std::string source(kChatMl);
  if (choice == "chatml") {
    format.stop_ = {"<|im_end|>", "<|im_start|>"};
  } else {
    ASSIGN_OR_RETURN(source, ReadFile(choice, TemplateLimits().max_source_bytes));
  }
  auto compiled = ChatTemplate::Compile(source);
  if (!compiled.ok()) return compiled.status().WithContext(choice);
  format.own_ = std::move(compiled).value();
  format.source_ = std::move(source);
  return format;
}

Result<RenderedChat> ChatFormat::Render(const boost::json::array& messages, const ChatPromptOptions& options) const {
  RenderOptions render = options_;
  render.add_generation_prompt = options.add_generation_prompt;
  render.variables = options.variables;
  return (own_ ? *own_ : *model_template_).Render(messages, render);
}

Result<std::vector<TokenId>> ChatFormat::Encode(const boost::json::array& messages,
                                                const ChatPromptOptions& options) const {
  ASSIGN_OR_RETURN(const RenderedChat rendered, Render(messages, options));
  // The template writes bos itself where the model wants one.
  EncodeOptions encode{.add_special = false, .parse_special = true};
  if (!options.parse_special) encode.literal = rendered.literal;
  return tokenizer_->Encode(rendered.text, encode);
}

}  // namespace kvasir
