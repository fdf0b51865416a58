#include "apps/conversation.h"

#include <boost/json/serialize.hpp>

#include "apps/write_file.h"
#include "base/utf8.h"
#include "io/json.h"

namespace kvasir::apps {
boost::json::array MessageList(const std::vector<Message>& messages) {
  boost::json::array list;
  for (const Message& message : messages) {
    list.push_back(boost::json::object{{"role", message.role}, {"content", message.content}});
  }
  return list;
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
