// Routes between text and tokens.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "base/utf8.h"
#include "server/service.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

/// The answer, or the error.
struct TextAnswer {
  json::object object;
  std::optional<ApiError> error;
};

HttpResponse ToResponse(const TextAnswer& answer) {
  if (answer.error) return ErrorResponse(*answer.error);
  return {.body = json::serialize(answer.object)};
}

ApiError NoTokenizer() { return {.status = 400, .message = "this model has no tokenizer", .code = "no_tokenizer"}; }

/// The rendered conversation of {"messages"} where `ids` is null, else its ids.
std::optional<RenderedChat> RenderMessages(const ModelContext& model, RequestFields& fields) {
  const auto messages = ReadMessages(fields, "messages");
  if (!messages) return {};
  if (model.chat == nullptr) {
    fields.Fail({.status = 400, .message = model.no_chat, .param = "messages", .code = "no_chat_template"});
    return {};
  }
  ChatPromptOptions options;
  if (const auto add = fields.Bool("add_generation_prompt")) options.add_generation_prompt = *add;
  auto rendered = model.chat->Render(*messages, options);
  if (rendered.ok()) return *std::move(rendered);
  fields.Fail("messages", rendered.status().message());
  return {};
}

/// llama-server names the text "content", vLLM "prompt" or "messages".
std::optional<std::vector<TokenId>> TokensOf(const ModelContext& model, RequestFields& fields) {
  if (fields.Find("messages") != nullptr) {
    const auto rendered = RenderMessages(model, fields);
    if (!rendered) return {};
    auto ids = model.tokenizer->Encode(rendered->text, {.add_special = false, .literal = rendered->literal});
    if (ids.ok()) return *std::move(ids);
    fields.Fail("messages", ids.status().message());
    return {};
  }
  const bool is_content = fields.Find("content") != nullptr;
  const std::string_view name = is_content ? "content" : "prompt";
  const auto text = fields.Text(name);
  if (!text) {
    fields.Fail(name, "a string was expected");
    return {};
  }
  EncodeOptions encode;
  encode.add_special = fields.Bool(is_content ? "add_special" : "add_special_tokens").value_or(!is_content);
  encode.parse_special = fields.Bool("parse_special").value_or(true);
  auto ids = model.tokenizer->Encode(*text, encode);
  if (ids.ok()) return *std::move(ids);
  fields.Fail(name, ids.status().message());
  return {};
}

TextAnswer AnswerTokenize(const ModelContext& model, const json::object& body) {
  if (model.tokenizer == nullptr) return {.error = NoTokenizer()};
  RequestFields fields(body);
  ReadModelName(model, fields);
  const bool pieces = fields.Bool("with_pieces").value_or(false);
  const auto ids = TokensOf(model, fields);
  if (!fields.ok()) return {.error = fields.error()};
  json::array tokens;
  for (const TokenId id : *ids) {
    if (pieces) {
      const auto bytes = model.tokenizer->TokenBytes(id);
      tokens.push_back({{"id", id}, {"piece", ReplaceInvalidUtf8(bytes.ok() ? *bytes : std::string())}});
    } else {
      tokens.push_back(id);
    }
  }
  return {.object = {{"tokens", std::move(tokens)}, {"count", ids->size()}, {"max_model_len", model.engine.context()}}};
}

TextAnswer AnswerDetokenize(const ModelContext& model, const json::object& body) {
  if (model.tokenizer == nullptr) return {.error = NoTokenizer()};
  RequestFields fields(body);
  ReadModelName(model, fields);
  const json::array* const tokens = fields.Array("tokens", 4u << 20);
  if (tokens == nullptr) fields.Fail("tokens", "a list of token ids was expected");
  std::vector<TokenId> ids;
  for (size_t i = 0; fields.ok() && i < tokens->size(); ++i) {
    const json::value& item = (*tokens)[i];
    const bool good = item.is_int64() && item.get_int64() >= 0 && item.get_int64() < model.tokenizer->vocab().size;
    if (!good) fields.Fail("tokens", fmt::format("element {} is no token id", i));
    if (good) ids.push_back(static_cast<TokenId>(item.get_int64()));
  }
  if (!fields.ok()) return {.error = fields.error()};
  const auto text = model.tokenizer->Decode(ids, {.skip_special = false});
  if (!text.ok()) return {.error = ToApiError(text.status(), "tokens")};
  return {.object = {{"content", *text}, {"prompt", *text}}};
}

TextAnswer AnswerTemplate(const ModelContext& model, const json::object& body) {
  RequestFields fields(body);
  ReadModelName(model, fields);
  const auto rendered = RenderMessages(model, fields);
  if (!fields.ok()) return {.error = fields.error()};
  return {.object = {{"prompt", ReplaceInvalidUtf8(rendered->text)}}};
}

using Answerer = TextAnswer (*)(const ModelContext&, const json::object&);

HttpResponse AnswerBody(Answerer answerer, const ModelContext& model, const std::string& body) {
  const RequestBody parsed = ParseRequestBody(body);
  if (parsed.error) return ErrorResponse(*parsed.error);
  return ToResponse(answerer(model, parsed.object()));
}

}  // namespace

asio::awaitable<void> Service::Tokenize(const HttpRequest& request, HttpReply& reply) {
  HttpResponse response;
  const std::function<void()> work = [&] { response = AnswerBody(AnswerTokenize, Context(), request.body); };
  co_await Offload(request.body.size(), work);
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::Detokenize(const HttpRequest& request, HttpReply& reply) {
  HttpResponse response;
  const std::function<void()> work = [&] { response = AnswerBody(AnswerDetokenize, Context(), request.body); };
  co_await Offload(request.body.size(), work);
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::ApplyTemplate(const HttpRequest& request, HttpReply& reply) {
  HttpResponse response;
  const std::function<void()> work = [&] { response = AnswerBody(AnswerTemplate, Context(), request.body); };
  co_await Offload(request.body.size(), work);
  co_await reply.Send(std::move(response));
}

}  // namespace kvasir::server
