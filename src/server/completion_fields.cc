// The fields that all completions share.
#include <openssl/rand.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "server/completion_call.h"

namespace kvasir::server {
namespace {

constexpr size_t kMostStopStrings = 64;
constexpr size_t kMostStopBytes = 16 << 10;
constexpr size_t kMostBiases = 1024;
constexpr size_t kMostSaltBytes = 1024;

uint64_t RandomSeed() {
  uint64_t seed = 0;
  unsigned char bytes[sizeof(seed)];
  KVASIR_CHECK(RAND_bytes(bytes, sizeof(bytes)) == 1);
  std::memcpy(&seed, bytes, sizeof(seed));
  return seed;
}

float ToFloat(const std::optional<double>& value, float fallback) {
  return value ? static_cast<float>(*value) : fallback;
}

/// Temperature and what follows from it: as asked for, else the model's own, else OpenAI's.
void ReadSampling(const ModelContext& model, RequestFields& fields, SamplingParams& sampling) {
  const SamplingParams& own = model.engine.defaults().sampling;
  sampling = own;
  if (own.greedy()) sampling.temperature = 1.0f;
  sampling.temperature = ToFloat(fields.Number("temperature", 0, 100), sampling.temperature);
  sampling.top_p = ToFloat(fields.Number("top_p", 0, 1), sampling.top_p);
  if (sampling.top_p == 0.0f) {  // the smallest set of tokens: the most probable one
    sampling.top_p = 1.0f;
    sampling.top_k = 1;
  }
  // -1 is vLLM's word for "all".
  if (const auto top_k = fields.Int("top_k", -1, 1 << 30)) {
    sampling.top_k = static_cast<int32_t>(std::max<int64_t>(*top_k, 0));
  }
  sampling.min_p = ToFloat(fields.Number("min_p", 0, 1), sampling.min_p);
  if (const auto typical = fields.Number("typical_p", 1e-6, 1)) sampling.typical_p = static_cast<float>(*typical);
  sampling.presence_penalty = ToFloat(fields.Number("presence_penalty", -2, 2), sampling.presence_penalty);
  sampling.frequency_penalty = ToFloat(fields.Number("frequency_penalty", -2, 2), sampling.frequency_penalty);
  for (const std::string_view name : {"repetition_penalty", "repeat_penalty"}) {
    sampling.repetition_penalty = ToFloat(fields.Number(name, 0.01, 100), sampling.repetition_penalty);
  }
  sampling.ignore_eos = fields.Bool("ignore_eos").value_or(false);
  if (const auto least = fields.Int("min_tokens", 0, 1 << 30)) sampling.min_new_tokens = static_cast<int32_t>(*least);
  const auto seed = fields.Int("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  // llama-server's and Ollama's -1 is a seed that is drawn.
  sampling.seed = seed && *seed != -1 ? static_cast<uint64_t>(*seed) : RandomSeed();
}

void ReadBias(const ModelContext& model, RequestFields& fields, SamplingParams& sampling) {
  const json::object* const biases = fields.Object("logit_bias");
  if (biases == nullptr) return;
  if (biases->size() > kMostBiases) {
    return fields.Fail("logit_bias", fmt::format("{} tokens; at most {} may be given", biases->size(), kMostBiases));
  }
  const int32_t vocab = model.engine.model().spec().vocab_size;
  for (const auto& [key, value] : *biases) {
    TokenId id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocab) {
      return fields.Fail("logit_bias", fmt::format("\"{}\" is no token id below {}", std::string_view(key), vocab));
    }
    const double bias = value.is_number() ? value.to_number<double>() : std::nan("");
    if (!(bias >= -100 && bias <= 100)) {
      return fields.Fail("logit_bias", fmt::format("token {}: a number from -100 to 100 was expected", id));
    }
    // -100 is a ban, as OpenAI has it.
    sampling.logit_bias[id] = bias == -100 ? -std::numeric_limits<float>::infinity() : static_cast<float>(bias);
  }
}

void ReadStop(RequestFields& fields, std::vector<std::string>& stop) {
  const json::value* const value = fields.Find("stop");
  if (value == nullptr) return;
  std::vector<std::string> found;
  if (value->is_string()) {
    found.emplace_back(value->get_string());
  } else if (const json::array* const list = fields.Array("stop", kMostStopStrings)) {
    for (const json::value& item : *list) {
      if (!item.is_string()) return fields.Fail("stop", "a string or a list of strings was expected");
      found.emplace_back(item.get_string());
    }
  }
  for (std::string& text : found) {
    if (text.empty()) continue;  // as OpenAI: nothing to stop at
    if (text.size() > kMostStopBytes) return fields.Fail("stop", "a stop string is too long");
    stop.push_back(std::move(text));
  }
}

}  // namespace

std::string ReadModelName(const ModelContext& model, RequestFields& fields) {
  std::string name = fields.Text("model", 1024).value_or(model.names.front());
  if (name.empty()) return model.names.front();
  if (std::ranges::find(model.names, name) == model.names.end()) {
    std::string known;
    for (const std::string& own : model.names) known += (known.empty() ? "\"" : ", \"") + own + "\"";
    fields.Fail({.status = 404,
                 .message = fmt::format("the model \"{}\" is not served here; there is {}", name, known),
                 .param = "model",
                 .code = "model_not_found"});
  }
  return name;
}

void ReadCommonFields(const ModelContext& model, RequestFields& fields, CompletionCall& call) {
  call.model = ReadModelName(model, fields);
  GenerationRequest& request = call.prompts.emplace_back();
  ReadSampling(model, fields, request.sampling);
  ReadBias(model, fields, request.sampling);
  ReadStop(fields, request.stop);
  request.n = static_cast<int32_t>(fields.Int("n", 1, model.max_choices).value_or(1));
  request.cache_salt = fields.Text("cache_salt", kMostSaltBytes).value_or("");
  request.skip_special = fields.Bool("skip_special_tokens").value_or(true);
  fields.Text("user", 64 << 10);
  // vLLM's: who has the lower number comes first.
  constexpr int64_t kMostPriority = 1 << 30;
  call.priority = static_cast<int32_t>(-fields.Int("priority", -kMostPriority, kMostPriority).value_or(0));
  call.stream = fields.Bool("stream").value_or(false);
  if (const json::object* const options = fields.Object("stream_options")) {
    if (!call.stream) fields.Fail("stream_options", "only for requests with \"stream\": true");
    RequestFields inner(*options, "stream_options.");
    call.include_usage = inner.Bool("include_usage").value_or(false);
    if (inner.error()) fields.Fail(*inner.error());
  }
}

void CheckLength(const ModelContext& model, RequestFields& fields, std::string_view name, size_t tokens) {
  const int64_t context = model.engine.context();
  if (static_cast<int64_t>(tokens) < context) return;
  fields.Fail({.status = 400,
               .message = fmt::format("{}: {} tokens; the model's context is {} tokens and needs room for an answer",
                                      name, tokens, context),
               .param = std::string(name),
               .code = "context_length_exceeded"});
}

}  // namespace kvasir::server
