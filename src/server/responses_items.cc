#include "server/responses_items.h"

#include <algorithm>
#include <map>
#include <utility>

namespace kvasir::server {
namespace {

constexpr size_t kMostItems = 16 << 10;

/// Puts items together to messages, in order.
class Conversation {
 public:
  explicit Conversation(RequestFields& fields) : fields_(fields) {}

  void AddText(std::string_view role, const std::string& text) {
    messages_.push_back(json::object{{"role", role}, {"content", text}});
  }

  void AddItem(const std::string& where, const json::value& item) {
    if (!item.is_object()) return fields_.Fail(where, "an item is an object");
    RequestFields fields(item.get_object(), where + ".");
    const std::string type = fields.Text("type", 64).value_or("message");
    if (type == "message") {
      AddMessage(where, item.get_object());
    } else if (type == "function_call") {
      AddCall(fields);
    } else if (type == "function_call_output") {
      AddOutput(where, fields);
    } else if (type == "item_reference") {
      fields.Fail("type", "nothing is stored here that could be referred to; send the item itself");
    } else {
      fields.Fail("type", fmt::format("items of type \"{}\" cannot be read; there are message, function_call and "
                                      "function_call_output",
                                      type));
    }
    if (fields.error()) fields_.Fail(*fields.error());
  }

  json::array Take() { return std::move(messages_); }

 private:
  void AddMessage(const std::string& where, const json::object& item) {
    json::object given = item;
    for (const char* const name : {"type", "id", "status", "phase"}) given.stable_erase(name);
    auto message = ReadMessage(fields_, where, given);
    if (message) messages_.push_back(*std::move(message));
  }

  void AddCall(RequestFields& fields) {
    const std::string id = fields.Text("call_id", 256).value_or("");
    const std::string name = fields.Text("name", 256).value_or("");
    const std::string arguments = fields.Text("arguments").value_or("{}");
    if (id.empty()) return fields.Fail("call_id", "a function_call has one");
    if (name.empty()) return fields.Fail("name", "a function_call has one");
    names_[id] = name;
    // Templates want arguments as an object.
    auto parsed = ParseJson(arguments, "arguments", {.max_depth = 128});
    json::value value = parsed.ok() && parsed->is_object() ? *std::move(parsed) : json::value(arguments);
    const bool goes_on = !messages_.empty() && messages_.back().get_object().at("role") == "assistant";
    if (!goes_on) AddText("assistant", "");
    json::object& message = messages_.back().get_object();
    if (!message.contains("tool_calls")) message["tool_calls"] = json::array();
    message["tool_calls"].get_array().push_back(
        {{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", std::move(value)}}}});
  }

  void AddOutput(const std::string& where, RequestFields& fields) {
    const std::string id = fields.Text("call_id", 256).value_or("");
    const auto call = names_.find(id);
    if (call == names_.end()) {
      return fields.Fail("call_id", fmt::format("there is no function_call \"{}\" before its output", id));
    }
    const json::value* const output = fields.Find("output");
    if (output == nullptr) return fields.Fail("output", "there is none");
    const json::object given = {{"role", "tool"}, {"tool_call_id", id}, {"name", call->second}, {"content", *output}};
    auto message = ReadMessage(fields_, where, given);
    if (message) messages_.push_back(*std::move(message));
  }

  RequestFields& fields_;
  json::array messages_;
  std::map<std::string, std::string> names_;  // of functions, by the call's id
};

bool IsSystem(const json::value& message) { return message.get_object().at("role") == "system"; }

/// The messages without the first `count` that may go.
json::array WithoutOldest(const json::array& messages, size_t count) {
  json::array kept;
  for (size_t i = 0; i < messages.size(); ++i) {
    const bool goes = count > 0 && !IsSystem(messages[i]) && i + 1 < messages.size();
    count -= goes ? 1 : 0;
    if (!goes) kept.push_back(messages[i]);
  }
  return kept;
}

/// How many messages have to go by the lengths of their texts alone. What a template adds comes on top, but a prompt of
/// what is left is no longer than the context by much, whatever came in.
size_t FewestToGo(const Tokenizer& tokenizer, const json::array& messages, size_t room) {
  std::vector<size_t> lengths;
  size_t total = 0;
  for (const json::value& message : messages) {
    const auto ids = tokenizer.Encode(message.get_object().at("content").get_string(), {.add_special = false});
    lengths.push_back(ids.ok() ? ids->size() : 0);
    total += lengths.back();
  }
  size_t count = 0;
  for (size_t i = 0; i + 1 < messages.size() && total >= room; ++i) {
    if (IsSystem(messages[i])) continue;
    total -= lengths[i];
    ++count;
  }
  return count;
}

/// The conversation without its oldest messages, so that it fits; if nothing does, one that does not fit.
Result<std::vector<TokenId>> EncodeWhatFits(const ModelContext& model, const json::array& messages,
                                            const ChatPromptOptions& options, size_t room) {
  size_t few = std::max<size_t>(FewestToGo(*model.tokenizer, messages, room), 1);
  size_t many = messages.size();
  while (few < many) {
    const size_t middle = few + (many - few) / 2;
    const auto ids = model.chat->Encode(WithoutOldest(messages, middle), options);
    // A template may also refuse what is left, as one that wants the user to begin does.
    if (ids.ok() && ids->size() < room) {
      many = middle;
    } else {
      few = middle + 1;
    }
  }
  return model.chat->Encode(WithoutOldest(messages, few), options);
}

}  // namespace

std::optional<json::array> ReadResponsesInput(RequestFields& fields) {
  Conversation conversation(fields);
  if (const auto instructions = fields.Text("instructions"); instructions && !instructions->empty()) {
    conversation.AddText("system", *instructions);
  }
  const json::value* const input = fields.Find("input");
  if (input == nullptr) {
    fields.Fail("input", "there is none");
  } else if (input->is_string()) {
    conversation.AddText("user", std::string(input->get_string()));
  } else if (const json::array* const items = fields.Array("input", kMostItems)) {
    if (items->empty()) fields.Fail("input", "there is no item");
    for (size_t i = 0; fields.ok() && i < items->size(); ++i) {
      conversation.AddItem(fmt::format("input[{}]", i), (*items)[i]);
    }
  }
  if (!fields.ok()) return {};
  return conversation.Take();
}

std::optional<std::vector<TokenId>> EncodeResponsesInput(const ModelContext& model, RequestFields& fields,
                                                         const json::array& messages, const ChatPromptOptions& options,
                                                         bool truncate) {
  if (model.chat == nullptr) {
    fields.Fail({.status = 400, .message = model.no_chat, .param = "input", .code = "no_chat_template"});
    return {};
  }
  const auto room = static_cast<size_t>(model.engine.context());
  auto ids = model.chat->Encode(messages, options);
  if (truncate && ids.ok() && ids->size() >= room) ids = EncodeWhatFits(model, messages, options, room);
  if (!ids.ok()) {
    fields.Fail("input", ids.status().message());
    return {};
  }
  CheckLength(model, fields, "input", ids->size());
  if (!fields.ok()) return {};
  return *std::move(ids);
}

}  // namespace kvasir::server
