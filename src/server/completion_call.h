// What a completion request asks for, whatever its dialect.
#pragma once

#include <boost/json/array.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/chat_format.h"
#include "engine/engine.h"
#include "server/api_error.h"
#include "server/request_fields.h"
#include "server/tool_calls.h"

namespace kvasir::server {

/// What requests are read against. Everything outlives the calls.
struct ModelContext {
  const Engine& engine;
  const Tokenizer* tokenizer = nullptr;     // null: the model takes ids only
  const ChatFormat* chat = nullptr;         // null: the model has no chat template
  std::string no_chat;                      // why
  std::shared_ptr<const TokenTrie> tokens;  // for constraints; null: no tokenizer
  int64_t max_choices = 1;                  // answers to one prompt
  std::vector<std::string> names;           // that the model is served under; the first is its own
};

/// A request to complete one text, or several.
struct CompletionCall {
  std::string model;                       // the name that was asked for
  std::vector<GenerationRequest> prompts;  // alike but for their prompts; at least one
  int32_t priority = 0;                    // BatchRequest's
  bool stream = false;
  bool include_usage = false;  // of a stream
  bool logprobs = false;
  bool echo = false;                     // the prompt's text comes before the answer's
  ToolSyntax tools = ToolSyntax::kNone;  // calls are read out of answers
};

/// Reads the fields that all completions share into `call` (with one prompt, still empty): sampling, lengths, stop
/// strings, n, stream and so on. Errors are those of `fields`.
void ReadCommonFields(const ModelContext& model, RequestFields& fields, CompletionCall& call);

/// Whether this server serves the model; the name that answers bear. No name is the server's first.
std::string ReadModelName(const ModelContext& model, RequestFields& fields);

/// POST /v1/chat/completions.
std::optional<ApiError> ReadChatCompletion(const ModelContext& model, const json::object& body, CompletionCall& call);
/// POST /v1/completions.
std::optional<ApiError> ReadCompletion(const ModelContext& model, const json::object& body, CompletionCall& call);

/// One message as ReadMessages gives it; `where` names it in errors.
std::optional<json::object> ReadMessage(RequestFields& fields, const std::string& where, const json::value& item);

/// The messages of a request as templates take them: contents of parts joined to strings, arguments of tool calls
/// parsed. `fields` holds the array under `name`.
std::optional<json::array> ReadMessages(RequestFields& fields, std::string_view name);

/// Ids of a conversation. Special tokens written in messages are plain text.
std::optional<std::vector<TokenId>> EncodeMessages(const ModelContext& model, RequestFields& fields,
                                                   const json::array& messages, const ChatPromptOptions& options);

/// Room for `prompt` and at least one more token; an error names the field.
void CheckLength(const ModelContext& model, RequestFields& fields, std::string_view name, size_t tokens);

}  // namespace kvasir::server
