// Routes that say what is served.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <ctime>

#include "server/service.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;

std::string PieceOf(const Tokenizer* tokenizer, std::optional<TokenId> id) {
  return tokenizer != nullptr && id ? std::string(tokenizer->IdToPiece(*id)) : std::string();
}

json::object ModelJson(const ModelContext& model, const std::string& name) {
  static const auto started = static_cast<int64_t>(std::time(nullptr));
  const DecoderSpec& spec = model.engine.model().spec();
  return {{"id", name},
          {"object", "model"},
          {"created", started},
          {"owned_by", "kvasir"},
          {"max_model_len", model.engine.context()},
          {"meta",
           {{"vocab_size", spec.vocab_size},
            {"n_ctx", model.engine.context()},
            {"weight_bytes", model.engine.model().weight_bytes()}}}};
}

}  // namespace

asio::awaitable<void> Service::ListModels(const HttpRequest& request, HttpReply& reply) {
  const ModelContext model = Context();
  HttpResponse response;
  constexpr std::string_view kOne = "/v1/models/";
  if (request.path.starts_with(kOne)) {
    // Clients escape the '/' of a name.
    const auto name = PercentDecode(std::string_view(request.path).substr(kOne.size()));
    if (name && std::ranges::find(model.names, *name) != model.names.end()) {
      response.body = json::serialize(ModelJson(model, *name));
    } else {
      response = ErrorResponse(
          {.status = 404, .message = "this model is not served here", .param = "model", .code = "model_not_found"});
    }
  } else {
    json::array list;
    for (const std::string& name : model.names) list.push_back(ModelJson(model, name));
    response.body = json::serialize(json::object{{"object", "list"}, {"data", std::move(list)}});
  }
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::Props(const HttpRequest&, HttpReply& reply) {
  const ModelContext model = Context();
  const GenerationDefaults& defaults = model.engine.defaults();
  const SamplingParams& sampling = defaults.sampling;
  json::object settings = {{"n_ctx", model.engine.context()},
                           {"temperature", sampling.greedy() ? 1.0 : static_cast<double>(sampling.temperature)},
                           {"top_k", sampling.top_k},
                           {"top_p", sampling.top_p},
                           {"min_p", sampling.min_p},
                           {"repeat_penalty", sampling.repetition_penalty},
                           {"presence_penalty", sampling.presence_penalty},
                           {"frequency_penalty", sampling.frequency_penalty}};
  json::object props = {{"default_generation_settings", std::move(settings)},
                        {"total_slots", model.max_choices},
                        {"model_alias", model.names.front()},
                        {"chat_template", model.chat != nullptr ? model.chat->source() : std::string()},
                        {"build_info", "kvasir " + options_.version}};
  const std::optional<TokenId> bos = model.tokenizer ? model.tokenizer->vocab().bos : std::nullopt;
  props["bos_token"] = PieceOf(model.tokenizer, bos);
  props["eos_token"] =
      defaults.eos.empty() ? std::string() : PieceOf(model.tokenizer, std::optional(defaults.eos.front()));
  HttpResponse response;
  response.body = json::serialize(props);
  co_await reply.Send(std::move(response));
}

}  // namespace kvasir::server
