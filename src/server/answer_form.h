// What an answer has to look like: JSON, JSON of a schema, calls of tools.
#pragma once

#include "server/completion_call.h"
#include "server/request_fields.h"

namespace kvasir::server {

/// From now on the answers to all prompts are JSON objects; `name` is the field that asks for it.
void KeepToJsonObject(const ModelContext& model, RequestFields& fields, std::string_view name, CompletionCall& call);
/// The same for JSON of a schema. Errors name the field and the place in the schema.
void KeepToJsonSchema(const ModelContext& model, RequestFields& fields, std::string_view name,
                      const json::value& schema, CompletionCall& call);

/// Reads response_format into a constraint.
void ReadResponseFormat(const ModelContext& model, RequestFields& fields, CompletionCall& call);

/// Reads tools, tool_choice and parallel_tool_calls: the tools go into the template's variables, and a choice that has
/// to call one becomes a constraint. To be read behind response_format, which does not go with such a choice.
void ReadTools(const ModelContext& model, RequestFields& fields, CompletionCall& call, ChatPromptOptions& options);

}  // namespace kvasir::server
