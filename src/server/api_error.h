// Errors as the clients of a path's dialect expect them: Ollama's below /api/, else OpenAI's.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "server/http.h"

namespace kvasir::server {

struct ApiError {
  int status = 500;
  std::string message;
  std::string param;  // the field that is wrong; empty: none
  std::string code;   // "context_length_exceeded"; empty: none
};

/// The status that an error of the engine or of a request's content means.
ApiError ToApiError(const Status& status, std::string param = {});

/// {"error": {"message", "type", "param", "code"}}.
std::string ErrorBody(const ApiError& error);
std::string ErrorBody(int status, std::string_view message);
/// The answer with it; 429 and 503 say when to try again.
HttpResponse ErrorResponse(const ApiError& error);
/// The same in the form of the path's dialect.
HttpResponse ErrorResponse(const ApiError& error, std::string_view path);

/// Whether the path is one of Ollama's interface.
bool IsOllamaPath(std::string_view path);
/// {"error": "text"}, as Ollama has it.
std::string OllamaErrorBody(const ApiError& error);

}  // namespace kvasir::server
