// Requests for the vectors of texts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/api_error.h"
#include "server/completion_call.h"

namespace kvasir::server {

struct EmbeddingCall {
  std::string model;  // the name that was asked for
  std::vector<std::vector<TokenId>> inputs;
  bool base64 = false;
  int64_t tokens = 0;  // of all inputs
};

/// Of length 1 each, in the order of the inputs.
using EmbeddingVectors = std::vector<std::vector<float>>;

/// "dimensions", where it is given, is what the model has.
void CheckDimensions(const ModelContext& model, RequestFields& fields);

/// POST /v1/embeddings.
std::optional<ApiError> ReadEmbedding(const ModelContext& model, const json::object& body, EmbeddingCall& call);

}  // namespace kvasir::server
