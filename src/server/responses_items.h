// The items of a Responses request as messages of a conversation.
#pragma once

#include <boost/json/array.hpp>

#include <optional>

#include "server/completion_call.h"

namespace kvasir::server {

/// The messages of "instructions" and "input": a text, or items (messages, function_call, function_call_output). Calls
/// that follow each other belong to one message of the assistant. Nothing: the error has been noted.
std::optional<json::array> ReadResponsesInput(RequestFields& fields);

/// Ids of the messages. With `truncate`, as many of the oldest messages (but none of the system's, and not the last)
/// are left out as it takes for the rest to fit into the context. An error names "input".
std::optional<std::vector<TokenId>> EncodeResponsesInput(const ModelContext& model, RequestFields& fields,
                                                         const json::array& messages, const ChatPromptOptions& options,
                                                         bool truncate);

}  // namespace kvasir::server
