// A conversation: its messages, how they become a prompt, and its file.
#pragma once

#include <boost/json/array.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/chat_format.h"

namespace kvasir::apps {

struct Message {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
};

/// The messages as chat templates take them.
boost::json::array MessageList(const std::vector<Message>& messages);

/// {"messages": [{"role", "content"}, …]}.
boost::json::object ConversationJson(const std::vector<Message>& messages);
/// The messages of such an object; everything about it is checked. `what` names it in errors.
Result<std::vector<Message>> ParseConversation(const boost::json::value& document, const std::string& what);

/// Writes {"messages": [{"role", "content"}, …]} beside `file` and renames it over: the old file stays whole on errors.
Status SaveConversation(const std::filesystem::path& file, const std::vector<Message>& messages);

/// Reads such a file; everything about it is checked.
Result<std::vector<Message>> LoadConversation(const std::filesystem::path& file);

}  // namespace kvasir::apps
