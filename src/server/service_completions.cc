// Completions: from a request to the engine and back, whole or as a stream.
#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "server/service.h"

namespace kvasir::server {
namespace {

using std::chrono::milliseconds;

// How often a client that says nothing is looked after: it may have hung up.
constexpr milliseconds kLook(100);
// How long a stream's head waits for its first token, so that what goes wrong before that can be told by a status.
constexpr milliseconds kHeadWait(1000);

/// What kept the requests from their end; nothing when all is well.
std::optional<ApiError> FailureOf(const GenerationStream& stream) {
  for (const Result<BatchOutput>& output : stream.outputs()) {
    if (!output.ok()) return ToApiError(output.status());
    for (const GeneratedSample& sample : output->samples) {
      if (sample.finish != FinishReason::kCancelled) continue;
      return ApiError{.status = 503, .message = "the server is shutting down", .code = "shutting_down"};
    }
  }
  return {};
}

}  // namespace

asio::awaitable<void> Service::ChatCompletions(const HttpRequest& request, HttpReply& reply) {
  co_await Complete(request, reply, Dialect::kChat);
}

asio::awaitable<void> Service::Completions(const HttpRequest& request, HttpReply& reply) {
  co_await Complete(request, reply, Dialect::kText);
}

std::vector<BatchRequest> Service::BatchRequests(const CompletionCall& call, const HttpRequest& request) {
  std::vector<BatchRequest> requests;
  for (const GenerationRequest& prompt : call.prompts) {
    BatchRequest& added = requests.emplace_back();
    added.generation = prompt;
    added.priority = call.priority;
    added.client = std::hash<std::string>()(request.key_name.empty() ? request.remote : request.key_name);
    // Who has another key shares nothing: neither blocks nor, by how long an answer takes, knowledge of them.
    added.generation.cache_salt = fmt::format("{}\n{}", request.key_name, prompt.cache_salt);
  }
  return requests;
}

asio::awaitable<void> Service::Complete(const HttpRequest& request, HttpReply& reply, Dialect dialect) {
  CompletionCall call;
  const CallReader reader = [&](const ModelContext& model, const json::object& body) {
    return dialect == Dialect::kChat ? ReadChatCompletion(model, body, call) : ReadCompletion(model, body, call);
  };
  const bool read = co_await ReadCall(request, reply, reader);
  if (!read) co_return;
  CompletionReply answer(dialect, call, model_->engine->tokenizer());
  co_await Answer(request, reply, call, answer);
}

asio::awaitable<bool> Service::ReadCall(const HttpRequest& request, HttpReply& reply, const CallReader& read) {
  std::optional<ApiError> error;
  const ModelContext model = Context();
  const std::function<void()> work = [&] {
    const RequestBody body = ParseRequestBody(request.body);
    error = body.error ? body.error : read(model, body.object());
  };
  co_await Offload(request.body.size(), work);
  if (!error && draining_) error = Unready();
  if (!error) co_return true;
  HttpResponse response = ErrorResponse(*error, request.path);
  co_await reply.Send(std::move(response));
  co_return false;
}

asio::awaitable<void> Service::Answer(const HttpRequest& request, HttpReply& reply, const CompletionCall& call,
                                      AnswerWriter& answer) {
  auto started = GenerationStream::Start(*model_->thread, executor_, BatchRequests(call, request));
  if (!started.ok()) {
    HttpResponse response = ErrorResponse(ToApiError(started.status()), request.path);
    co_await reply.Send(std::move(response));
    co_return;
  }
  const std::unique_ptr<GenerationStream> stream = *std::move(started);
  if (answer.streams()) {
    co_await AnswerStream(request, *stream, answer, reply);
  } else {
    co_await AnswerWhole(request, *stream, answer, reply);
  }
}

void Service::CountRequests(const GenerationStream& stream, const CompletionUsage& usage, bool cancelled) {
  RequestFigures figures{.finish = "cancelled", .completion_tokens = usage.completion_tokens};
  if (!cancelled) {
    const bool failed = FailureOf(stream).has_value();
    const Result<BatchOutput>& first = stream.outputs().front();
    figures = {.finish = failed ? "error" : FinishReasonName(first->samples.front().finish),
               .prompt_tokens = usage.prompt_tokens,
               .cached_tokens = usage.cached_tokens,
               .completion_tokens = usage.completion_tokens,
               .queued_ms = usage.queued_ms,
               .first_token_ms = usage.first_token_ms,
               .total_ms = usage.total_ms};
  }
  metrics_.Request(figures);
}

asio::awaitable<void> Service::AnswerWhole(const HttpRequest& request, GenerationStream& stream, AnswerWriter& answer,
                                           HttpReply& reply) {
  while (!stream.ended()) {
    const std::vector<StreamEvent> events = co_await stream.Next(kLook);
    for (const StreamEvent& event : events) answer.Take(event);
    if (!reply.Gone()) continue;
    CountRequests(stream, answer.Usage({}), true);
    co_return;
  }
  const CompletionUsage usage = answer.Usage(stream.outputs());
  CountRequests(stream, usage, false);
  HttpResponse response;
  if (const auto failure = FailureOf(stream)) {
    response = ErrorResponse(*failure, request.path);
  } else {
    response.body = answer.Whole(usage);
  }
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::AnswerStream(const HttpRequest& request, GenerationStream& stream, AnswerWriter& answer,
                                            HttpReply& reply) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Clock::time_point last_write = start;
  std::vector<Clock::time_point> last_token;  // by choice
  bool open = true;
  while (open && !stream.ended()) {
    const std::vector<StreamEvent> events = co_await stream.Next(kLook);
    const Clock::time_point now = Clock::now();
    std::string text;
    for (const StreamEvent& event : events) {
      text += answer.Take(event);
      last_token.resize(std::max(last_token.size(), static_cast<size_t>(event.choice) + 1));
      Clock::time_point& last = last_token[static_cast<size_t>(event.choice)];
      if (last != Clock::time_point()) metrics_.Token(std::chrono::duration<double, std::milli>(now - last).count());
      last = now;
    }
    if (!reply.begun()) {
      if (text.empty() && (stream.ended() || now - start < kHeadWait)) {
        open = !reply.Gone();
        continue;
      }
      co_await reply.Begin(200, answer.stream_type());
      text.insert(0, answer.First());
    }
    if (text.empty() && now - last_write >= options_.ping) text = answer.ping();
    if (text.empty()) {
      open = !reply.Gone();
      continue;
    }
    last_write = now;
    open = co_await reply.Write(text);
  }
  if (!open) {
    CountRequests(stream, answer.Usage({}), true);
    co_return;
  }
  const CompletionUsage usage = answer.Usage(stream.outputs());
  CountRequests(stream, usage, false);
  const auto failure = FailureOf(stream);
  if (failure && !reply.begun()) {
    HttpResponse response = ErrorResponse(*failure, request.path);
    co_await reply.Send(std::move(response));
    co_return;
  }
  std::string last = failure ? answer.Failure(*failure) : answer.Last(usage);
  if (!reply.begun()) {  // an answer without a piece
    co_await reply.Begin(200, answer.stream_type());
    last.insert(0, answer.First());
  }
  co_await reply.Write(last);
  co_await reply.End();
}

}  // namespace kvasir::server
