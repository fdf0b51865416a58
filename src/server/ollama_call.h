// What a request of Ollama's interface asks for (docs/api.md of ollama/ollama).
#pragma once

#include <optional>
#include <string>

#include "server/completion_call.h"
#include "server/embedding_call.h"

namespace kvasir::server {

enum class OllamaRoute { kChat, kGenerate };

struct OllamaCall : CompletionCall {
  bool load_only = false;  // no text was given: Ollama then loads the model, which here has happened long ago
};

/// POST /api/chat and /api/generate. Sampling that neither the request nor the model says is Ollama's own. Errors:
/// images, templates, suffixes, and options that this server cannot follow; options it need not follow (num_gpu,
/// num_thread, keep_alive and the like) are ignored.
std::optional<ApiError> ReadOllama(OllamaRoute route, const ModelContext& model, const json::object& body,
                                   OllamaCall& call);

/// POST /api/embed ("input", a text or several) and /api/embeddings ("prompt", one text); `name` is the field.
std::optional<ApiError> ReadOllamaEmbedding(std::string_view name, const ModelContext& model, const json::object& body,
                                            EmbeddingCall& call);

/// The served model that "model" (or "name", as older clients have it) means: "x" and "x:latest" are the same. The name
/// of an answer is the one that was asked for: `asked`, where it is not null.
std::string ReadOllamaName(const ModelContext& model, RequestFields& fields, std::string* asked = nullptr);

/// "x:latest" of "x"; names with a tag as they are.
std::string WithOllamaTag(const std::string& name);

}  // namespace kvasir::server
