#include "server/api_error.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "base/utf8.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

std::string_view TypeOf(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable";
    default: return status < 500 ? "invalid_request_error" : "server_error";
  }
}

json::value TextOrNull(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(ReplaceInvalidUtf8(text));
}

}  // namespace

ApiError ToApiError(const Status& status, std::string param) {
  ApiError error{.status = 500, .message = status.message(), .param = std::move(param)};
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kInvalidData:
    case StatusCode::kUnsupported: error.status = 400; break;
    case StatusCode::kNotFound: error.status = 404; break;
    case StatusCode::kResourceExhausted: error.status = 429; break;
    default: break;
  }
  return error;
}

std::string ErrorBody(const ApiError& error) {
  return json::serialize(json::object{{"error",
                                       {{"message", ReplaceInvalidUtf8(error.message)},
                                        {"type", TypeOf(error.status)},
                                        {"param", TextOrNull(error.param)},
                                        {"code", TextOrNull(error.code)}}}});
}

std::string ErrorBody(int status, std::string_view message) {
  return ErrorBody({.status = status, .message = std::string(message)});
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = ErrorBody(error)};
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("Retry-After", "1");
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

HttpResponse ErrorResponse(const ApiError& error, std::string_view path) {
  HttpResponse response = ErrorResponse(error);
  if (IsOllamaPath(path)) response.body = OllamaErrorBody(error);
  return response;
}

bool IsOllamaPath(std::string_view path) { return path.starts_with("/api/"); }

std::string OllamaErrorBody(const ApiError& error) {
  return json::serialize(json::object{{"error", ReplaceInvalidUtf8(error.message)}});
}

}  // namespace kvasir::server
