#include "server/ollama_call.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/answer_form.h"

namespace kvasir::server {
namespace {

constexpr std::string_view kLatest = ":latest";
constexpr int32_t kWholeContext = std::numeric_limits<int32_t>::max();
constexpr size_t kMostTexts = 2048;

std::string_view WithoutLatest(std::string_view name) {
  return name.ends_with(kLatest) ? name.substr(0, name.size() - kLatest.size()) : name;
}

/// Ollama's defaults where neither the model nor the request says how to sample.
void AddDefaults(const ModelContext& model, json::object& common) {
  if (!model.engine.defaults().sampling.greedy()) return;
  for (const auto& [name, value] :
       {std::pair<const char*, json::value>("temperature", 0.8), std::pair<const char*, json::value>("top_k", 40),
        std::pair<const char*, json::value>("top_p", 0.9)}) {
    if (!common.contains(name)) common[name] = value;
  }
}

/// Options that change what an answer is and that this server has no equal of.
void RefuseUnknownSampling(const ModelContext& model, RequestFields& options) {
  if (options.Int("mirostat", 0, 2).value_or(0) != 0) {
    options.Fail("mirostat", "this server has no Mirostat sampling; leave it out or give 0");
  }
  const int64_t context = model.engine.context();
  const int64_t window = options.Int("repeat_last_n", -1, kWholeContext).value_or(-1);
  const bool penalises = options.Number("repeat_penalty", 0.01, 100).value_or(1) != 1 ||
                         options.Number("presence_penalty", -2, 2).value_or(0) != 0 ||
                         options.Number("frequency_penalty", -2, 2).value_or(0) != 0;
  if (penalises && window != -1 && window < context) {
    options.Fail("repeat_last_n", "penalties look at the whole text here; leave it out or give -1");
  }
  if (const auto length = options.Int("num_ctx", 1, kWholeContext); length && *length > context) {
    options.Fail("num_ctx", fmt::format("this server's context is {} tokens (kvasir serve -c)", context));
  }
}

/// Sampling, lengths and stop strings: "options" in the words of ReadCommonFields.
void ReadOptions(const ModelContext& model, RequestFields& fields, CompletionCall& call) {
  static constexpr std::string_view kShared[] = {
      "temperature",      "top_k", "top_p", "min_p", "typical_p", "seed", "stop", "repeat_penalty", "presence_penalty",
      "frequency_penalty"};
  static const json::object none;
  const json::object* given = fields.Object("options");
  if (given == nullptr) given = &none;
  RequestFields options(*given, "options.");
  RefuseUnknownSampling(model, options);
  // 0 and below: until the end, or until the context is full, which is the same here.
  const int64_t most = options.Int("num_predict", -2, kWholeContext).value_or(-1);
  if (options.error()) return fields.Fail(*options.error());
  json::object common;
  for (const std::string_view name : kShared) {
    if (const json::value* const value = options.Find(name)) common[name] = *value;
  }
  AddDefaults(model, common);
  RequestFields shared(common, "options.");
  ReadCommonFields(model, shared, call);
  if (shared.error()) return fields.Fail(*shared.error());
  call.prompts.front().max_new_tokens = most <= 0 ? kWholeContext : static_cast<int32_t>(most);
}

/// What both routes share.
void ReadShared(const ModelContext& model, RequestFields& fields, OllamaCall& call) {
  std::string asked;
  ReadOllamaName(model, fields, &asked);
  ReadOptions(model, fields, call);
  if (!fields.ok()) return;
  call.model = asked;
  call.stream = fields.Bool("stream").value_or(true);
  call.logprobs = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Int("top_logprobs", 0, kMostTopLogprobs).value_or(0);
  if (top > 0 && !call.logprobs) fields.Fail("top_logprobs", "needs \"logprobs\": true");
  call.prompts.front().top_logprobs = static_cast<int32_t>(top);
  const json::value* const format = fields.Find("format");
  if (format == nullptr || (format->is_string() && format->get_string().empty())) return;
  if (format->is_object()) return KeepToJsonSchema(model, fields, "format", *format, call);
  if (!format->is_string() || format->get_string() != "json") {
    return fields.Fail("format", "\"json\" or a JSON Schema was expected");
  }
  KeepToJsonObject(model, fields, "format", call);
}

void RefuseImages(RequestFields& fields, const std::string& where, const json::value* images) {
  if (images == nullptr || images->is_null() || (images->is_array() && images->get_array().empty())) return;
  fields.Fail(where, "this model takes text, no images");
}

/// A message as OpenAI has it: contents may be missing, and calls and answers of tools bear other names.
json::value ToOpenAiMessage(RequestFields& fields, const std::string& where, const json::value& item) {
  if (!item.is_object()) return item;
  json::object message = item.get_object();
  RefuseImages(fields, where + ".images", message.if_contains("images"));
  message.stable_erase("images");
  message.stable_erase("thinking");
  const json::value* const content = message.if_contains("content");
  if (content == nullptr || content->is_null()) message["content"] = "";
  if (const json::value* const name = message.if_contains("tool_name")) {
    const json::value copy = *name;
    message["name"] = copy;
    message.stable_erase("tool_name");
  }
  json::value* const calls = message.if_contains("tool_calls");
  if (calls == nullptr || !calls->is_array()) return message;
  for (json::value& call : calls->get_array()) {
    if (json::object* const object = call.if_object()) object->emplace("type", "function");
  }
  return message;
}

void SetPrompt(const ModelContext& model, RequestFields& fields, std::string_view name,
               std::optional<std::vector<TokenId>> ids, CompletionCall& call) {
  if (!ids) return;
  CheckLength(model, fields, name, ids->size());
  call.prompts.front().prompt = *std::move(ids);
}

void SetConversation(const ModelContext& model, RequestFields& fields, std::string_view name,
                     const json::array& messages, const ChatPromptOptions& options, CompletionCall& call) {
  SetPrompt(model, fields, name, EncodeMessages(model, fields, messages, options), call);
  if (!fields.ok()) return;
  std::vector<std::string>& stop = call.prompts.front().stop;
  stop.insert(stop.end(), model.chat->stop().begin(), model.chat->stop().end());
}

void ReadChat(const ModelContext& model, RequestFields& fields, OllamaCall& call) {
  const json::value* const given = fields.Find("messages");
  call.load_only = given == nullptr || (given->is_array() && given->get_array().empty());
  if (call.load_only || !fields.ok()) return;
  json::object translated;
  if (const json::array* const list = given->if_array()) {
    json::array& messages = translated["messages"].emplace_array();
    for (size_t i = 0; i < list->size(); ++i) {
      messages.push_back(ToOpenAiMessage(fields, fmt::format("messages[{}]", i), (*list)[i]));
    }
  } else {
    translated["messages"] = *given;
  }
  RequestFields inner(translated);
  const auto messages = ReadMessages(inner, "messages");
  if (inner.error()) fields.Fail(*inner.error());
  ChatPromptOptions options;
  ReadTools(model, fields, call, options);
  if (fields.ok()) SetConversation(model, fields, "messages", *messages, options, call);
}

void ReadGenerate(const ModelContext& model, RequestFields& fields, OllamaCall& call) {
  RefuseImages(fields, "images", fields.Find("images"));
  if (!fields.Text("template").value_or("").empty()) {
    fields.Fail("template", "a template is a program; this server runs none that a request brings");
  }
  if (!fields.Text("suffix").value_or("").empty()) fields.Fail("suffix", "text is completed at its end only");
  const std::string prompt = fields.Text("prompt").value_or("");
  const std::string system = fields.Text("system").value_or("");
  const bool raw = fields.Bool("raw").value_or(false);
  call.load_only = prompt.empty();
  if (call.load_only || !fields.ok()) return;
  if (raw || model.chat == nullptr) {
    if (model.tokenizer == nullptr) return fields.Fail("prompt", "this model has no tokenizer");
    if (!system.empty() && !raw)
      return fields.Fail("system", "this model has no chat template that has a place for it");
    auto ids = model.tokenizer->Encode(prompt);
    if (!ids.ok()) return fields.Fail("prompt", ids.status().message());
    return SetPrompt(model, fields, "prompt", *std::move(ids), call);
  }
  json::array messages;
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  SetConversation(model, fields, "prompt", messages, {}, call);
}

}  // namespace

std::string WithOllamaTag(const std::string& name) {
  // A colon before a slash belongs to a host ("localhost:5000/x").
  const size_t slash = name.rfind('/');
  const size_t colon = name.find(':', slash == name.npos ? 0 : slash);
  return colon == name.npos ? name + std::string(kLatest) : name;
}

std::string ReadOllamaName(const ModelContext& model, RequestFields& fields, std::string* asked) {
  std::string name = fields.Text("model", 1024).value_or("");
  if (name.empty()) name = fields.Text("name", 1024).value_or("");
  if (name.empty()) name = model.names.front();
  if (asked != nullptr) *asked = name;
  const auto same = [&](const std::string& own) { return WithoutLatest(own) == WithoutLatest(name); };
  const auto found = std::ranges::find_if(model.names, same);
  if (found != model.names.end()) return *found;
  fields.Fail({.status = 404,
               .message = fmt::format("model '{}' not found; here is '{}'", name, WithOllamaTag(model.names.front())),
               .param = "model",
               .code = "model_not_found"});
  return {};
}

std::optional<ApiError> ReadOllama(OllamaRoute route, const ModelContext& model, const json::object& body,
                                   OllamaCall& call) {
  RequestFields fields(body);
  ReadShared(model, fields, call);
  if (!fields.ok()) return fields.error();
  if (route == OllamaRoute::kChat) {
    ReadChat(model, fields, call);
  } else {
    ReadGenerate(model, fields, call);
  }
  return fields.error();
}

std::optional<ApiError> ReadOllamaEmbedding(std::string_view name, const ModelContext& model, const json::object& body,
                                            EmbeddingCall& call) {
  RequestFields fields(body);
  ReadOllamaName(model, fields, &call.model);
  CheckDimensions(model, fields);
  const bool truncate = fields.Bool("truncate").value_or(true);
  const json::value* const input = fields.Find(name);
  json::array texts;
  if (input != nullptr && input->is_array() && name == "input") {
    texts = input->get_array();
  } else if (input != nullptr && !(input->is_string() && input->get_string().empty())) {
    texts.push_back(*input);
  }
  if (texts.size() > kMostTexts) fields.Fail(name, fmt::format("{} texts; at most {}", texts.size(), kMostTexts));
  if (model.tokenizer == nullptr) fields.Fail(name, "this model has no tokenizer");
  for (size_t i = 0; fields.ok() && i < texts.size(); ++i) {
    if (!texts[i].is_string()) return fields.Fail(name, "a string was expected"), fields.error();
    auto ids = model.tokenizer->Encode(texts[i].get_string());
    if (!ids.ok()) return fields.Fail(name, ids.status().message()), fields.error();
    if (ids->empty()) return fields.Fail(name, "an empty text has no vector"), fields.error();
    const auto most = static_cast<size_t>(model.engine.context() - 1);
    if (truncate && ids->size() > most) ids->resize(most);
    CheckLength(model, fields, name, ids->size());
    call.tokens += static_cast<int64_t>(ids->size());
    call.inputs.push_back(*std::move(ids));
  }
  return fields.error();
}

}  // namespace kvasir::server
