// OpenAI's Responses.
#include "server/responses_reply.h"
#include "server/service.h"

namespace kvasir::server {

asio::awaitable<void> Service::Responses(const HttpRequest& request, HttpReply& reply) {
  ResponsesCall call;
  const CallReader reader = [&](const ModelContext& model, const json::object& body) {
    return ReadResponsesCall(model, body, call);
  };
  const bool read = co_await ReadCall(request, reply, reader);
  if (!read) co_return;
  ResponsesReply answer(call, model_->engine->tokenizer());
  co_await Answer(request, reply, call, answer);
}

}  // namespace kvasir::server
