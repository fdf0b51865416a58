// Texts as vectors.
#include <openssl/evp.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "server/service.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

constexpr size_t kMostInputs = 2048;  // as OpenAI's

/// Vectors that come from the engine's thread.
struct Collector : std::enable_shared_from_this<Collector> {
  Collector(const asio::any_io_executor& on, size_t count) : executor(on), timer(on), left(count), vectors(count) {}

  // All below is of the server's thread.
  const asio::any_io_executor executor;
  asio::steady_timer timer;
  size_t left;
  std::vector<std::vector<float>> vectors;
  Status status;

  void Take(size_t i, Result<std::vector<float>> vector) {
    --left;
    if (vector.ok()) {
      vectors[i] = *std::move(vector);
    } else if (status.ok()) {
      status = vector.status();
    }
    if (left == 0) timer.cancel();
  }
};

/// Cancels what has not ended when the client goes.
struct Cancelling {
  EngineThread& engine;
  std::vector<RequestId> ids;
  ~Cancelling() {
    for (const RequestId id : ids) engine.Cancel(id);
  }
};

std::optional<std::vector<TokenId>> ReadInput(const ModelContext& model, RequestFields& fields,
                                              const json::value& input) {
  std::vector<TokenId> ids;
  if (input.is_string() && model.tokenizer != nullptr) {
    auto encoded = model.tokenizer->Encode(input.get_string());
    if (!encoded.ok()) {
      fields.Fail("input", encoded.status().message());
      return {};
    }
    ids = *std::move(encoded);
  } else if (const json::array* const list = input.if_array()) {
    for (const json::value& item : *list) {
      if (!item.is_int64() || item.get_int64() < 0 || item.get_int64() > std::numeric_limits<TokenId>::max()) {
        fields.Fail("input", "a list of token ids holds integers only");
        return {};
      }
      ids.push_back(static_cast<TokenId>(item.get_int64()));
    }
  } else {
    fields.Fail("input", "a string, a list of strings, token ids, or lists of token ids were expected");
    return {};
  }
  if (ids.empty()) fields.Fail("input", "an empty text has no vector");
  return ids;
}

}  // namespace

void CheckDimensions(const ModelContext& model, RequestFields& fields) {
  const DecoderSpec& spec = model.engine.model().spec();
  const int64_t width = spec.project_out ? spec.embedding_width : spec.width;
  if (const auto dimensions = fields.Int("dimensions", 1, 1 << 20); dimensions && *dimensions != width) {
    fields.Fail("dimensions", fmt::format("this model's vectors have {}", width));
  }
}

std::optional<ApiError> ReadEmbedding(const ModelContext& model, const json::object& body, EmbeddingCall& call) {
  RequestFields fields(body);
  call.model = ReadModelName(model, fields);
  const std::string format = fields.Text("encoding_format", 64).value_or("float");
  call.base64 = format == "base64";
  if (!call.base64 && format != "float") {
    fields.Fail("encoding_format", fmt::format("\"{}\" is none of float, base64", format));
  }
  CheckDimensions(model, fields);
  const json::value* const input = fields.Find("input");
  if (input == nullptr) fields.Fail("input", "there is none");
  if (!fields.ok()) return fields.error();
  json::array single;
  const json::array* list = input->if_array();
  if (list == nullptr || (!list->empty() && list->front().is_number())) {
    single.push_back(*input);
    list = &single;
  }
  if (list->empty() || list->size() > kMostInputs) {
    fields.Fail("input", fmt::format("{} inputs; 1 to {} can be given", list->size(), kMostInputs));
  }
  for (size_t i = 0; fields.ok() && i < list->size(); ++i) {
    auto ids = ReadInput(model, fields, (*list)[i]);
    if (!ids) break;
    CheckLength(model, fields, "input", ids->size());
    call.tokens += static_cast<int64_t>(ids->size());
    call.inputs.push_back(*std::move(ids));
  }
  return fields.error();
}

namespace {

json::value VectorJson(const std::vector<float>& vector, bool base64) {
  if (!base64) {
    json::array list;
    for (const float x : vector) list.emplace_back(static_cast<double>(x));
    return list;
  }
  // Little-endian fp32, as this processor has it.
  const size_t bytes = vector.size() * sizeof(float);
  std::string text(4 * ((bytes + 2) / 3) + 1, '\0');
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                     reinterpret_cast<const unsigned char*>(vector.data()), static_cast<int>(bytes));
  text.resize(static_cast<size_t>(length));
  return json::value(text);
}

std::string EmbeddingBody(const EmbeddingCall& call, const EmbeddingVectors& vectors) {
  json::array data;
  for (size_t i = 0; i < vectors.size(); ++i) {
    data.push_back({{"object", "embedding"}, {"index", i}, {"embedding", VectorJson(vectors[i], call.base64)}});
  }
  return json::serialize(json::object{{"object", "list"},
                                      {"data", std::move(data)},
                                      {"model", call.model},
                                      {"usage", {{"prompt_tokens", call.tokens}, {"total_tokens", call.tokens}}}});
}

}  // namespace

asio::awaitable<void> Service::Embeddings(const HttpRequest& request, HttpReply& reply) {
  EmbeddingCall call;
  const CallReader read = [&](const ModelContext& model, const json::object& body) {
    return ReadEmbedding(model, body, call);
  };
  const EmbeddingWriter write = EmbeddingBody;
  co_await Embed(request, reply, call, read, write);
}

asio::awaitable<void> Service::Embed(const HttpRequest& request, HttpReply& reply, EmbeddingCall& call,
                                     const CallReader& read, const EmbeddingWriter& write) {
  const bool good = co_await ReadCall(request, reply, read);
  if (!good) co_return;
  std::optional<ApiError> error;
  const auto collector = std::make_shared<Collector>(executor_, call.inputs.size());
  Cancelling cancelling{.engine = *model_->thread, .ids = {}};
  for (size_t i = 0; !error && i < call.inputs.size(); ++i) {
    EmbeddingRequest embedding;
    embedding.tokens = call.inputs[i];
    embedding.pooling = options_.pooling;
    embedding.on_done = [collector, i](Result<std::vector<float>> vector) {
      asio::post(collector->executor,
                 [collector, i, vector = std::move(vector)]() mutable { collector->Take(i, std::move(vector)); });
    };
    const auto id = model_->thread->Submit(std::move(embedding));
    if (id.ok()) {
      cancelling.ids.push_back(*id);
    } else {
      error = ToApiError(id.status());
    }
  }
  while (!error && collector->left > 0) {
    collector->timer.expires_after(std::chrono::milliseconds(100));
    co_await collector->timer.async_wait(asio::as_tuple(asio::use_awaitable));
    if (reply.Gone()) co_return;
  }
  if (!error && collector->status.code() == StatusCode::kCancelled) {
    error = ApiError{.status = 503, .message = "the server is shutting down", .code = "shutting_down"};
  } else if (!error && !collector->status.ok()) {
    error = ToApiError(collector->status);
  }
  HttpResponse response;
  if (error) {
    response = ErrorResponse(*error, request.path);
  } else {
    response.body = write(call, collector->vectors);
  }
  co_await reply.Send(std::move(response));
}

}  // namespace kvasir::server
