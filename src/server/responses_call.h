// What a request of OpenAI's Responses interface asks for (POST /v1/responses).
#pragma once

#include <boost/json/object.hpp>

#include <optional>

#include "server/completion_call.h"

namespace kvasir::server {

struct ResponsesCall : CompletionCall {
  /// Fields of the response that say how it was made, as OpenAI echoes them ("instructions", "tools", "store": false
  /// …).
  boost::json::object settings;
};

/// Reads a request. Nothing is stored here: "store" is answered with false, and what refers to something stored
/// (previous_response_id, conversation, prompt, item_reference) is an error, as are background answers, tools other
/// than functions, and items and parts that are no text.
std::optional<ApiError> ReadResponsesCall(const ModelContext& model, const json::object& body, ResponsesCall& call);

}  // namespace kvasir::server
