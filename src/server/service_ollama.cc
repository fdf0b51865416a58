// Ollama's interface, for clients that speak nothing else. What manages files of models (pull, create, delete) is not
// there: one model is served, the one that the server was started with.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <chrono>
#include <filesystem>

#include "server/ollama_reply.h"
#include "server/service.h"

namespace kvasir::server {
namespace {

namespace json = boost::json;
using SystemClock = std::chrono::system_clock;

/// "1.1B", "820.4K".
std::string ShortCount(int64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.1f}B", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.1f}M", value / 1e6);
  return fmt::format("{:.1f}K", value / 1e3);
}

/// When the model's file was written; the beginning of time where the system does not say.
std::string ModifiedAt(const std::filesystem::path& path) {
  std::error_code error;
  const auto written = std::filesystem::last_write_time(path, error);
  if (error) return Rfc3339({});
  return Rfc3339(std::chrono::time_point_cast<SystemClock::duration>(std::chrono::file_clock::to_sys(written)));
}

json::object DetailsJson(const ModelContext& model) {
  const Model& weights = model.engine.model();
  const std::string type = std::string(DTypeName(weights.dtype()));
  std::string level;
  for (const char c : type) level += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  const bool gguf = model.engine.options().model.extension() == ".gguf";
  return {{"parent_model", ""},
          {"format", gguf ? "gguf" : "safetensors"},
          {"family", weights.spec().family},
          {"families", json::array{weights.spec().family}},
          {"parameter_size", ShortCount(weights.parameter_count())},
          {"quantization_level", level}};
}

json::object EntryJson(const ModelContext& model, const std::string& name) {
  const std::string tagged = WithOllamaTag(name);
  return {{"name", tagged},
          {"model", tagged},
          {"size", model.engine.model().weight_bytes()},
          {"digest", model.engine.model().hash()},
          {"details", DetailsJson(model)}};
}

/// The model's own way to sample, in the words of a Modelfile.
std::string ParametersOf(const ModelContext& model) {
  const SamplingParams& sampling = model.engine.defaults().sampling;
  if (sampling.greedy()) return {};
  std::string text = fmt::format("temperature {}\ntop_p {}", sampling.temperature, sampling.top_p);
  if (sampling.top_k > 0) text += fmt::format("\ntop_k {}", sampling.top_k);
  if (sampling.min_p > 0) text += fmt::format("\nmin_p {}", sampling.min_p);
  if (sampling.repetition_penalty != 1) text += fmt::format("\nrepeat_penalty {}", sampling.repetition_penalty);
  return text;
}

json::object InfoJson(const ModelContext& model) {
  const Model& weights = model.engine.model();
  const DecoderSpec& spec = weights.spec();
  const AttentionSpec& attention = spec.layers.front().attention;
  const std::string& name = spec.family;
  return {{"general.architecture", name},
          {"general.parameter_count", weights.parameter_count()},
          {name + ".context_length", model.engine.context()},
          {name + ".embedding_length", spec.width},
          {name + ".block_count", spec.layers.size()},
          {name + ".attention.head_count", attention.n_heads},
          {name + ".attention.head_count_kv", attention.n_kv_heads},
          {name + ".vocab_size", spec.vocab_size}};
}

json::object ShowJson(const ModelContext& model, const std::string& name) {
  json::array capabilities = {"completion"};
  const std::string chat = model.chat != nullptr ? model.chat->source() : std::string();
  if (ToolSyntaxOf(chat) != ToolSyntax::kNone) capabilities.emplace_back("tools");
  return {{"modelfile", fmt::format("FROM {}\n", name)},
          {"parameters", ParametersOf(model)},
          {"template", chat},
          {"details", DetailsJson(model)},
          {"model_info", InfoJson(model)},
          {"capabilities", std::move(capabilities)},
          {"modified_at", ModifiedAt(model.engine.options().model)}};
}

std::string VectorsBody(std::string_view route, const EmbeddingCall& call, const EmbeddingVectors& vectors,
                        double milliseconds) {
  json::array lists;
  for (const std::vector<float>& vector : vectors) {
    json::array& list = lists.emplace_back(json::array()).get_array();
    for (const float x : vector) list.emplace_back(static_cast<double>(x));
  }
  if (route == "prompt") {
    return json::serialize(json::object{{"embedding", lists.empty() ? json::array() : lists.front().get_array()}});
  }
  return json::serialize(json::object{{"model", call.model},
                                      {"embeddings", std::move(lists)},
                                      {"total_duration", static_cast<int64_t>(milliseconds * 1e6)},
                                      {"load_duration", 0},
                                      {"prompt_eval_count", call.tokens}});
}

}  // namespace

asio::awaitable<void> Service::OllamaTags(const HttpRequest&, HttpReply& reply) {
  const ModelContext model = Context();
  json::array list;
  for (const std::string& name : model.names) {
    json::object entry = EntryJson(model, name);
    entry["modified_at"] = ModifiedAt(model.engine.options().model);
    list.push_back(std::move(entry));
  }
  HttpResponse response{.body = json::serialize(json::object{{"models", std::move(list)}})};
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::OllamaRunning(const HttpRequest&, HttpReply& reply) {
  const ModelContext model = Context();
  json::object entry = EntryJson(model, model.names.front());
  // It stays until the server ends; where models stay for ever Ollama has a date as far away.
  entry["expires_at"] = Rfc3339(SystemClock::now() + std::chrono::years(100));
  entry["size_vram"] = 0;
  entry["context_length"] = model.engine.context();
  HttpResponse response{.body = json::serialize(json::object{{"models", json::array{std::move(entry)}}})};
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::OllamaShow(const HttpRequest& request, HttpReply& reply) {
  std::string name;
  const CallReader read = [&](const ModelContext& model, const json::object& body) {
    RequestFields fields(body);
    name = ReadOllamaName(model, fields);
    return fields.error();
  };
  const bool good = co_await ReadCall(request, reply, read);
  if (!good) co_return;
  HttpResponse response{.body = json::serialize(ShowJson(Context(), name))};
  co_await reply.Send(std::move(response));
}

asio::awaitable<void> Service::OllamaChat(const HttpRequest& request, HttpReply& reply) {
  co_await OllamaComplete(request, reply, OllamaRoute::kChat);
}

asio::awaitable<void> Service::OllamaGenerate(const HttpRequest& request, HttpReply& reply) {
  co_await OllamaComplete(request, reply, OllamaRoute::kGenerate);
}

asio::awaitable<void> Service::OllamaComplete(const HttpRequest& request, HttpReply& reply, OllamaRoute route) {
  OllamaCall call;
  const CallReader reader = [&](const ModelContext& model, const json::object& body) {
    return ReadOllama(route, model, body, call);
  };
  const bool read = co_await ReadCall(request, reply, reader);
  if (!read) co_return;
  if (call.load_only) {
    HttpResponse response{.body = OllamaLoaded(route, call)};
    co_await reply.Send(std::move(response));
    co_return;
  }
  OllamaReply answer(route, call, model_->engine->tokenizer());
  co_await Answer(request, reply, call, answer);
}

asio::awaitable<void> Service::OllamaEmbed(const HttpRequest& request, HttpReply& reply) {
  co_await OllamaVectors(request, reply, "input");
}

asio::awaitable<void> Service::OllamaEmbeddings(const HttpRequest& request, HttpReply& reply) {
  co_await OllamaVectors(request, reply, "prompt");
}

asio::awaitable<void> Service::OllamaVectors(const HttpRequest& request, HttpReply& reply, std::string_view field) {
  const auto start = std::chrono::steady_clock::now();
  EmbeddingCall call;
  const CallReader read = [&](const ModelContext& model, const json::object& body) {
    return ReadOllamaEmbedding(field, model, body, call);
  };
  const EmbeddingWriter write = [&](const EmbeddingCall& of, const EmbeddingVectors& vectors) {
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    return VectorsBody(field, of, vectors, took.count());
  };
  co_await Embed(request, reply, call, read, write);
}

}  // namespace kvasir::server
