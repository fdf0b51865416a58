#include "apps/conversation.h"

#include <boost/json/serialize.hpp>

#include "apps/write_file.h"
#include "base/utf8.h"
#include "io/json.h"

namespace kvasir::apps {
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
  return format;
}

Result<std::vector<TokenId>> ChatFormat::Render(const std::vector<Message>& messages, bool parse_special) const {
  boost::json::array list;
  for (const Message& message : messages) {
    list.push_back(boost::json::object{{"role", message.role}, {"content", message.content}});
  }
  const ChatTemplate& chat = own_ ? *own_ : *model_template_;
  ASSIGN_OR_RETURN(const RenderedChat rendered, chat.Render(list, options_));
  // The template writes bos itself where the model wants one.
  EncodeOptions encode{.add_special = false, .parse_special = true};
  if (!parse_special) encode.literal = rendered.literal;
  return tokenizer_->Encode(rendered.text, encode);
}

boost::json::object ConversationJson(const std::vector<Message>& messages) {
  boost::json::array list;
  for (const Message& message : messages) {
    list.push_back(boost::json::object{{"role", message.role}, {"content", ReplaceInvalidUtf8(message.content)}});
  }
  return {{"messages", std::move(list)}};
}

Status SaveConversation(const std::filesystem::path& file, const std::vector<Message>& messages) {
  return WriteFileAtomically(file, boost::json::serialize(ConversationJson(messages)) + "\n");
}

Result<std::vector<Message>> LoadConversation(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const json::value document, ParseJsonFile(file));
  return ParseConversation(document, file.string());
}

Result<std::vector<Message>> ParseConversation(const json::value& document, const std::string& name) {
  const json::object* object = document.if_object();
  const json::value* list = object ? object->if_contains("messages") : nullptr;
  if (!list || !list->is_array()) {
    return InvalidData("{}: not a conversation: an object with a list \"messages\" was expected", name);
  }
  std::vector<Message> messages;
  for (const json::value& item : list->get_array()) {
    const std::string what = fmt::format("{}: message {}", name, messages.size());
    if (!item.is_object()) return InvalidData("{}: not an object", what);
    const JsonReader reader(item.get_object(), what);
    Message message;
    ASSIGN_OR_RETURN(message.role, reader.String({"role"}));
    ASSIGN_OR_RETURN(message.content, reader.String({"content"}));
    if (message.role != "system" && message.role != "user" && message.role != "assistant" && message.role != "tool") {
      return InvalidData("{}: role \"{}\" is none of system, user, assistant, tool", what, message.role);
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

}  // namespace kvasir::apps
