#include "server/completion_call.h"

#include <algorithm>
#include <utility>

#include "server/answer_form.h"

namespace kvasir::server {
namespace {

constexpr size_t kMostMessages = 16 << 10;
constexpr size_t kMostPrompts = 128;
constexpr int32_t kWholeContext = std::numeric_limits<int32_t>::max();

/// The text of a message's parts. Nothing: the error has been noted.
std::optional<std::string> JoinParts(RequestFields& fields, const std::string& where, const json::array& parts) {
  std::string text;
  for (const json::value& part : parts) {
    const json::object* const object = part.if_object();
    const json::value* const type = object != nullptr ? object->if_contains("type") : nullptr;
    if (type == nullptr || !type->is_string()) {
      fields.Fail(where, "a part is an object with a \"type\"");
      return {};
    }
    const std::string_view name = type->get_string();
    const char* const key = name == "refusal" ? "refusal" : "text";
    const json::value* const content = object->if_contains(key);
    if (name != "text" && name != "refusal" && name != "input_text" && name != "output_text") {
      fields.Fail(where, fmt::format("parts of type \"{}\" cannot be read; this model takes text", name));
      return {};
    }
    if (content == nullptr || !content->is_string()) {
      fields.Fail(where, fmt::format("a part of type \"{}\" has a string \"{}\"", name, key));
      return {};
    }
    if (!text.empty()) text += '\n';
    text += content->get_string();
  }
  return text;
}

/// Templates want arguments of tool calls as objects, clients send them as text.
void ParseArguments(json::object& message) {
  json::value* const calls = message.if_contains("tool_calls");
  if (calls == nullptr || !calls->is_array()) return;
  for (json::value& call : calls->get_array()) {
    json::object* const object = call.if_object();
    json::value* const function = object != nullptr ? object->if_contains("function") : nullptr;
    if (function == nullptr || !function->is_object()) continue;
    json::value* const arguments = function->get_object().if_contains("arguments");
    if (arguments == nullptr || !arguments->is_string()) continue;
    auto parsed = ParseJson(arguments->get_string(), "arguments", {.max_depth = 128});
    if (parsed.ok() && parsed->is_object()) *arguments = *std::move(parsed);
  }
}

void ReadChatLogprobs(RequestFields& fields, CompletionCall& call) {
  call.logprobs = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Int("top_logprobs", 0, kMostTopLogprobs);
  if (top.value_or(0) > 0 && !call.logprobs) fields.Fail("top_logprobs", "needs \"logprobs\": true");
  call.prompts.front().top_logprobs = static_cast<int32_t>(top.value_or(0));
}

/// Variables that templates know, beside messages.
void ReadTemplateFields(RequestFields& fields, ChatPromptOptions& options) {
  if (fields.Find("chat_template") != nullptr) {
    fields.Fail("chat_template", "a template is a program; this server runs none that a request brings");
  }
  if (const json::object* const variables = fields.Object("chat_template_kwargs")) options.variables = *variables;
  if (const auto add = fields.Bool("add_generation_prompt")) options.add_generation_prompt = *add;
  for (const char* const name : {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"}) {
    options.variables.erase(name);
  }
}

std::optional<std::vector<TokenId>> ReadIds(RequestFields& fields, const json::array& list) {
  std::vector<TokenId> ids;
  ids.reserve(list.size());
  for (const json::value& item : list) {
    if (!item.is_int64() || item.get_int64() < 0 || item.get_int64() > std::numeric_limits<TokenId>::max()) {
      fields.Fail("prompt", "a list of token ids holds integers only");
      return {};
    }
    ids.push_back(static_cast<TokenId>(item.get_int64()));
  }
  return ids;
}

std::optional<std::vector<TokenId>> ReadPrompt(const ModelContext& model, RequestFields& fields,
                                               const json::value& prompt) {
  if (prompt.is_array()) return ReadIds(fields, prompt.get_array());
  if (!prompt.is_string()) {
    fields.Fail("prompt", "a string, a list of token ids, or a list of these was expected");
    return {};
  }
  if (model.tokenizer == nullptr) {
    fields.Fail("prompt", "this model has no tokenizer; give token ids");
    return {};
  }
  // As llama-server and vLLM: who writes a special token in a raw prompt means it.
  auto ids = model.tokenizer->Encode(prompt.get_string());
  if (!ids.ok()) {
    fields.Fail("prompt", ids.status().message());
    return {};
  }
  return *std::move(ids);
}

bool IsListOfPrompts(const json::value& prompt) {
  const json::array* const list = prompt.if_array();
  return list != nullptr && !list->empty() && !list->front().is_number();
}

}  // namespace

std::optional<json::object> ReadMessage(RequestFields& fields, const std::string& where, const json::value& item) {
  if (!item.is_object()) {
    fields.Fail(where, "a message is an object");
    return {};
  }
  json::object message = item.get_object();
  json::value* const role = message.if_contains("role");
  if (role == nullptr || !role->is_string()) {
    fields.Fail(where + ".role", "a message has a role: system, user, assistant or tool");
    return {};
  }
  // The newer name. (message["role"] would move the members of a full object, though the key is there.)
  if (role->get_string() == "developer") *role = "system";
  static constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool"};
  if (std::ranges::find(kRoles, std::string_view(role->get_string())) == std::end(kRoles)) {
    fields.Fail(where + ".role", fmt::format("\"{}\" is none of system, developer, user, assistant, tool",
                                             std::string_view(role->get_string())));
    return {};
  }
  json::value* const content = message.if_contains("content");
  if (content == nullptr || content->is_null()) {
    if (!message.contains("tool_calls")) {
      fields.Fail(where + ".content", "a message has a content");
      return {};
    }
    message["content"] = "";
  } else if (content->is_array()) {
    auto text = JoinParts(fields, where + ".content", content->get_array());
    if (!text) return {};
    *content = *std::move(text);
  } else if (!content->is_string()) {
    fields.Fail(where + ".content", "a string or a list of parts was expected");
    return {};
  }
  ParseArguments(message);
  return message;
}

std::optional<json::array> ReadMessages(RequestFields& fields, std::string_view name) {
  const json::array* const list = fields.Array(name, kMostMessages);
  if (list == nullptr) {
    fields.Fail(name, "a list of messages was expected");
    return {};
  }
  if (list->empty()) fields.Fail(name, "there is no message");
  json::array messages;
  for (size_t i = 0; i < list->size() && fields.ok(); ++i) {
    auto message = ReadMessage(fields, fmt::format("{}[{}]", name, i), (*list)[i]);
    if (message) messages.emplace_back(*std::move(message));
  }
  if (!fields.ok()) return {};
  return messages;
}

std::optional<std::vector<TokenId>> EncodeMessages(const ModelContext& model, RequestFields& fields,
                                                   const json::array& messages, const ChatPromptOptions& options) {
  if (model.chat == nullptr) {
    fields.Fail({.status = 400, .message = model.no_chat, .param = "messages", .code = "no_chat_template"});
    return {};
  }
  auto ids = model.chat->Encode(messages, options);
  if (!ids.ok()) {
    fields.Fail("messages", ids.status().message());
    return {};
  }
  return *std::move(ids);
}

std::optional<ApiError> ReadChatCompletion(const ModelContext& model, const json::object& body, CompletionCall& call) {
  RequestFields fields(body);
  ReadCommonFields(model, fields, call);
  GenerationRequest& request = call.prompts.front();
  int64_t most = kWholeContext;
  for (const std::string_view name : {"max_tokens", "max_completion_tokens"}) {
    most = std::min(most, fields.Int(name, 1, kWholeContext).value_or(kWholeContext));
  }
  request.max_new_tokens = static_cast<int32_t>(most);
  ReadChatLogprobs(fields, call);
  ChatPromptOptions options;
  ReadTemplateFields(fields, options);
  ReadResponseFormat(model, fields, call);
  ReadTools(model, fields, call, options);
  const auto messages = ReadMessages(fields, "messages");
  if (!fields.ok()) return fields.error();
  auto prompt = EncodeMessages(model, fields, *messages, options);
  if (!prompt) return fields.error();
  CheckLength(model, fields, "messages", prompt->size());
  request.prompt = *std::move(prompt);
  request.stop.insert(request.stop.end(), model.chat->stop().begin(), model.chat->stop().end());
  return fields.error();
}

std::optional<ApiError> ReadCompletion(const ModelContext& model, const json::object& body, CompletionCall& call) {
  RequestFields fields(body);
  ReadCommonFields(model, fields, call);
  GenerationRequest& request = call.prompts.front();
  // OpenAI's default; -1 and null are "until the end" for llama-server and vLLM.
  const auto most = fields.Int("max_tokens", -1, kWholeContext).value_or(16);
  if (most == 0) fields.Fail("max_tokens", "at least 1 new token is needed");
  request.max_new_tokens = most < 0 ? kWholeContext : static_cast<int32_t>(most);
  if (const auto top = fields.Int("logprobs", 0, kMostTopLogprobs)) {
    call.logprobs = true;
    request.top_logprobs = static_cast<int32_t>(*top);
  }
  call.echo = fields.Bool("echo").value_or(false);
  if (call.echo && call.logprobs) fields.Fail("echo", "logprobs of a prompt's tokens are not computed");
  if (const auto best_of = fields.Int("best_of", 1, 1 << 20); best_of && *best_of != request.n) {
    fields.Fail("best_of", "only the value of n is possible");
  }
  if (const auto suffix = fields.Text("suffix"); suffix && !suffix->empty()) {
    fields.Fail("suffix", "text is completed at its end only");
  }
  const json::value* const prompt = fields.Find("prompt");
  if (prompt == nullptr) fields.Fail("prompt", "there is none");
  if (!fields.ok()) return fields.error();

  json::array single;
  const json::array* list = &single;
  if (IsListOfPrompts(*prompt)) {
    list = fields.Array("prompt", kMostPrompts);
  } else {
    single.push_back(*prompt);
  }
  if (list == nullptr) return fields.error();
  ReadResponseFormat(model, fields, call);
  const GenerationRequest alike = std::move(request);
  call.prompts.clear();
  for (const json::value& item : *list) {
    auto ids = ReadPrompt(model, fields, item);
    if (!ids) return fields.error();
    CheckLength(model, fields, "prompt", ids->size());
    call.prompts.push_back(alike);
    call.prompts.back().prompt = *std::move(ids);
  }
  return fields.error();
}

}  // namespace kvasir::server
