#include "server/responses_call.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "server/answer_form.h"
#include "server/responses_items.h"

namespace kvasir::server {
namespace {

constexpr int32_t kWholeContext = std::numeric_limits<int32_t>::max();
constexpr size_t kMostTools = 128;
constexpr size_t kMostIncludes = 64;
// As OpenAI bounds them.
constexpr size_t kMostMetadata = 16;
constexpr size_t kMostMetadataKey = 64;
constexpr size_t kMostMetadataValue = 512;

/// What this server has nothing behind.
void RefuseStored(RequestFields& fields) {
  for (const char* const name : {"previous_response_id", "conversation", "prompt"}) {
    if (fields.Find(name) == nullptr) continue;
    return fields.Fail(name, "nothing is stored here that could be referred to; send all of the conversation as input");
  }
  if (fields.Bool("background").value_or(false)) {
    fields.Fail("background", "answers are not kept for later here; use \"stream\": true");
  }
  if (fields.Int("n", 1, kWholeContext).value_or(1) != 1) fields.Fail("n", "a response is one answer");
}

json::value ReadMetadata(RequestFields& fields) {
  const json::object* const metadata = fields.Object("metadata");
  if (metadata == nullptr) return json::object();
  if (metadata->size() > kMostMetadata) fields.Fail("metadata", fmt::format("at most {} entries", kMostMetadata));
  for (const auto& [key, value] : *metadata) {
    if (key.size() > kMostMetadataKey || !value.is_string() || value.get_string().size() > kMostMetadataValue) {
      fields.Fail("metadata", fmt::format("keys of at most {} bytes and strings of at most {} were expected",
                                          kMostMetadataKey, kMostMetadataValue));
    }
  }
  return *metadata;
}

void ReadLogprobs(RequestFields& fields, CompletionCall& call) {
  const auto top = fields.Int("top_logprobs", 0, kMostTopLogprobs).value_or(0);
  call.logprobs = top > 0;
  if (const json::array* const include = fields.Array("include", kMostIncludes)) {
    for (const json::value& item : *include) {
      if (!item.is_string()) return fields.Fail("include", "a list of strings was expected");
      // The others are about items that no answer of this server has.
      call.logprobs |= item.get_string() == "message.output_text.logprobs";
    }
  }
  call.prompts.front().top_logprobs = static_cast<int32_t>(top);
}

/// text.format; returns it as the response echoes it.
json::value ReadTextFormat(const ModelContext& model, RequestFields& fields, CompletionCall& call) {
  json::value plain = {{"type", "text"}};
  const json::object* const text = fields.Object("text");
  if (text == nullptr) return plain;
  RequestFields outer(*text, "text.");
  const json::object* const format = outer.Object("format");
  if (outer.error()) fields.Fail(*outer.error());
  if (format == nullptr) return plain;
  RequestFields inner(*format, "text.format.");
  const std::string type = inner.Text("type", 64).value_or("");
  if (type == "json_object") {
    KeepToJsonObject(model, fields, "text.format", call);
  } else if (type == "json_schema") {
    const json::object* const schema = inner.Object("schema");
    if (inner.Text("name", 256).value_or("").empty()) inner.Fail("name", "a json_schema has a name");
    if (schema == nullptr) inner.Fail("schema", "there is none");
    if (inner.ok()) KeepToJsonSchema(model, fields, "text.format.schema", *schema, call);
  } else if (type != "text") {
    inner.Fail("type", fmt::format("\"{}\" is none of text, json_object, json_schema", type));
  }
  if (inner.error()) fields.Fail(*inner.error());
  return *format;
}

/// A function as chat completions have it: {"type", "function": {…}}.
json::value ToChatTool(const json::value& tool) {
  if (!tool.is_object() || tool.get_object().contains("function")) return nullptr;  // another interface's
  json::object function = tool.get_object();
  const json::value type = function.contains("type") ? function.at("type") : json::value(nullptr);
  function.stable_erase("type");
  return json::object{{"type", type}, {"function", std::move(function)}};
}

/// A tool as the response echoes it: with all that OpenAI's description demands.
json::value ToEchoedTool(const json::value& tool) {
  json::object echoed = tool.get_object();
  echoed.emplace("strict", false);
  echoed.emplace("parameters", nullptr);
  return echoed;
}

void ReadFunctions(const ModelContext& model, RequestFields& fields, ResponsesCall& call, ChatPromptOptions& options) {
  json::object chat;
  json::array echoed;
  if (const json::array* const tools = fields.Array("tools", kMostTools)) {
    json::array& list = chat["tools"].emplace_array();
    for (size_t i = 0; i < tools->size(); ++i) {
      const json::value tool = ToChatTool((*tools)[i]);
      const json::value* const type = tool.is_object() ? &tool.get_object().at("type") : nullptr;
      if (type == nullptr || !type->is_string() || type->get_string() != "function") {
        return fields.Fail(fmt::format("tools[{}]", i),
                           "only functions can be called here: {\"type\": \"function\", \"name\": …, …}");
      }
      list.push_back(tool);
      echoed.push_back(ToEchoedTool((*tools)[i]));
    }
  }
  const json::value* const choice = fields.Find("tool_choice");
  if (choice != nullptr) chat["tool_choice"] = choice->is_string() ? *choice : ToChatTool(*choice);
  if (choice != nullptr && chat["tool_choice"].is_null()) {
    return fields.Fail("tool_choice", R"("auto", "none", "required" or {"type": "function", "name": …} was expected)");
  }
  RequestFields chat_fields(chat);
  ReadTools(model, chat_fields, call, options);
  if (chat_fields.error()) fields.Fail(*chat_fields.error());
  call.settings["tools"] = std::move(echoed);
  call.settings["tool_choice"] = choice != nullptr ? *choice : json::value("auto");
}

/// 0.7 of 0.7f, which is 0.699999988 as a double.
double Shortest(float value) {
  const std::string text = fmt::format("{}", value);
  double exact = value;
  std::from_chars(text.data(), text.data() + text.size(), exact);
  return exact;
}

json::value ValueOrNull(const RequestFields& fields, std::string_view name) {
  const json::value* const value = fields.Find(name);
  return value != nullptr ? *value : json::value(nullptr);
}

}  // namespace

std::optional<ApiError> ReadResponsesCall(const ModelContext& model, const json::object& body, ResponsesCall& call) {
  RequestFields fields(body);
  RefuseStored(fields);
  ReadCommonFields(model, fields, call);
  GenerationRequest& request = call.prompts.front();
  request.max_new_tokens =
      static_cast<int32_t>(fields.Int("max_output_tokens", 1, kWholeContext).value_or(kWholeContext));
  ReadLogprobs(fields, call);
  fields.Bool("store");
  const std::string truncation = fields.Text("truncation", 64).value_or("disabled");
  if (truncation != "auto" && truncation != "disabled") {
    fields.Fail("truncation", fmt::format("\"{}\" is none of auto, disabled", truncation));
  }
  call.settings = {{"instructions", ValueOrNull(fields, "instructions")},
                   {"max_output_tokens", ValueOrNull(fields, "max_output_tokens")},
                   {"metadata", ReadMetadata(fields)},
                   {"parallel_tool_calls", fields.Bool("parallel_tool_calls").value_or(true)},
                   {"previous_response_id", nullptr},
                   {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
                   {"background", false},
                   {"service_tier", "default"},
                   {"store", false},
                   {"temperature", Shortest(request.sampling.temperature)},
                   {"top_p", Shortest(request.sampling.top_p)},
                   {"top_logprobs", request.top_logprobs},
                   {"truncation", truncation}};
  if (const auto user = fields.Text("user")) call.settings["user"] = *user;
  call.settings["text"] = {{"format", ReadTextFormat(model, fields, call)}};
  ChatPromptOptions options;
  if (fields.ok()) ReadFunctions(model, fields, call, options);
  if (!fields.ok()) return fields.error();
  const auto messages = ReadResponsesInput(fields);
  if (!messages) return fields.error();
  auto prompt = EncodeResponsesInput(model, fields, *messages, options, truncation == "auto");
  if (!prompt) return fields.error();
  request.prompt = *std::move(prompt);
  request.stop.insert(request.stop.end(), model.chat->stop().begin(), model.chat->stop().end());
  return fields.error();
}

}  // namespace kvasir::server
