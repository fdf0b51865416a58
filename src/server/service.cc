#include "server/service.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <utility>

#include "server/page.h"

namespace kvasir::server {
namespace {

constexpr size_t kBytesAtOnce = 32 << 10;

asio::awaitable<void> Run(const std::function<void()>* work) {
  (*work)();
  co_return;
}

/// Whether the body says that it is JSON. Browsers let any page send other types to any server without asking it first,
/// so this is a second wall behind the gate's, which lets no page of another origin in. Ollama's clients do without it:
/// its documentation has curl -d, which says that the body is a form.
bool IsJson(const HttpRequest& request) {
  if (IsOllamaPath(request.path)) return true;
  const std::string* const type = request.Header("Content-Type");
  if (type == nullptr) return request.body.empty();
  const std::string name = AsciiLower(std::string_view(*type).substr(0, type->find(';')));
  const size_t end = name.find_last_not_of(' ');
  const std::string_view trimmed = std::string_view(name).substr(0, end == name.npos ? 0 : end + 1);
  return trimmed == "application/json" || trimmed.ends_with("+json");
}

}  // namespace

Service::Service(const asio::any_io_executor& executor, ServiceOptions options)
    : executor_(executor), options_(std::move(options)), metrics_(options_.model_names.front()) {}

Service::~Service() { workers_.join(); }

void Service::Serve(ServedModel model) { model_ = std::move(model); }

ModelContext Service::Context() const {
  return {.engine = *model_->engine,
          .tokenizer = model_->engine->tokenizer(),
          .chat = model_->chat ? &*model_->chat : nullptr,
          .no_chat = model_->no_chat,
          .tokens = model_->tokens,
          .max_choices = model_->max_running,
          .names = options_.model_names};
}

asio::awaitable<void> Service::Offload(size_t bytes, const std::function<void()>& work) {
  if (bytes <= kBytesAtOnce) {
    work();
    co_return;
  }
  co_await asio::co_spawn(workers_.get_executor(), Run(&work), asio::use_awaitable);
}

const std::vector<Service::Route>& Service::Routes() {
  static const std::vector<Route> routes = {
      {"GET", "/", &Service::ShowPage, false},
      {"GET", "/health", &Service::Health, false},
      {"GET", "/v1/health", &Service::Health, false},
      {"GET", "/metrics", &Service::ShowMetrics, false},
      {"GET", "/version", &Service::ShowVersion, false},
      {"GET", "/glassbox", &Service::WatchSteps, false},
      {"GET", "/props", &Service::Props},
      {"GET", "/models", &Service::ListModels},
      {"GET", "/v1/models", &Service::ListModels},
      {"POST", "/tokenize", &Service::Tokenize},
      {"POST", "/detokenize", &Service::Detokenize},
      {"POST", "/apply-template", &Service::ApplyTemplate},
      {"POST", "/v1/embeddings", &Service::Embeddings},
      {"POST", "/embeddings", &Service::Embeddings},
      {"POST", "/v1/chat/completions", &Service::ChatCompletions},
      {"POST", "/chat/completions", &Service::ChatCompletions},
      {"POST", "/v1/completions", &Service::Completions},
      {"POST", "/completions", &Service::Completions},
      {"POST", "/v1/responses", &Service::Responses},
      {"POST", "/responses", &Service::Responses},
      {"GET", "/api/version", &Service::ShowVersion, false},
      {"GET", "/api/tags", &Service::OllamaTags},
      {"GET", "/api/ps", &Service::OllamaRunning},
      {"POST", "/api/show", &Service::OllamaShow},
      {"POST", "/api/chat", &Service::OllamaChat},
      {"POST", "/api/generate", &Service::OllamaGenerate},
      {"POST", "/api/embed", &Service::OllamaEmbed},
      {"POST", "/api/embeddings", &Service::OllamaEmbeddings},
  };
  return routes;
}

/// Why nothing new can be begun.
std::optional<ApiError> Service::Unready() const {
  if (draining_) return ApiError{.status = 503, .message = "the server is shutting down", .code = "shutting_down"};
  if (!model_) return ApiError{.status = 503, .message = "the model is being loaded", .code = "loading"};
  return {};
}

asio::awaitable<void> Service::Handle(const HttpRequest& request, HttpReply& reply) {
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  const Route* found = nullptr;
  std::string allowed;
  for (const Route& route : Routes()) {
    const bool one_model = route.path == "/v1/models" && request.path.starts_with("/v1/models/");
    if (route.path != request.path && !one_model) continue;
    allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
    if (route.method == method) found = &route;
  }
  std::optional<ApiError> error;
  if (allowed.empty()) {
    error = ApiError{.status = 404, .message = fmt::format("there is no {}", request.path), .code = "not_found"};
  } else if (found == nullptr) {
    error = ApiError{.status = 405, .message = fmt::format("{} takes {}", request.path, allowed)};
  } else if (found->needs_model && Unready()) {
    error = Unready();
  } else if (found->method == "POST" && !IsJson(request)) {
    error = ApiError{.status = 415, .message = "the body must be JSON, its Content-Type application/json"};
  } else if (const std::string* const coding = request.Header("Content-Encoding");
             coding != nullptr && !EqualsIgnoringCase(*coding, "identity")) {
    error = ApiError{.status = 415, .message = "the body must not be compressed (Content-Encoding)"};
  }
  if (error) {
    HttpResponse response = ErrorResponse(*error, request.path);
    if (error->status == 405) response.headers.emplace_back("Allow", allowed);
    co_await reply.Send(std::move(response));
    co_return;
  }
  co_await (this->*found->handler)(request, reply);
}

asio::awaitable<void> Service::Health(const HttpRequest&, HttpReply& reply) {
  HttpResponse response{.body = R"({"status":"ok"})"};
  if (const auto error = Unready()) response = ErrorResponse(*error);
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::ShowMetrics(const HttpRequest&, HttpReply& reply) {
  HttpResponse response;
  response.body = metrics_.Text();
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::ShowVersion(const HttpRequest&, HttpReply& reply) {
  HttpResponse response;
  response.body = boost::json::serialize(boost::json::object{{"version", options_.version}});
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::ShowPage(const HttpRequest& request, HttpReply& reply) {
  HttpResponse response;
  if (options_.page) {
    response.body = std::string(PageHtml());
    response.content_type = "text/html; charset=utf-8";
    response.headers = {{"Content-Security-Policy", std::string(PageContentSecurityPolicy())},
                        {"Referrer-Policy", "no-referrer"},
                        {"X-Frame-Options", "DENY"},
                        {"Cache-Control", "no-cache"}};
  } else {
    response = ErrorResponse({.status = 404, .message = fmt::format("there is no {}", request.path)});
  }
  co_await reply.Send(std::move(response));
}

}  // namespace kvasir::server
