#include "model/families/common.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"

namespace kvasir::families {
namespace {

/// Ids that the vocabulary has; others can never be generated and are left out.
Result<std::vector<int32_t>> ReadIds(const JsonReader& config, std::string_view key, int32_t vocab_size) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> ids, config.IntList({key}, -1, kMaxSize));
  std::vector<int32_t> kept;
  for (int64_t id : ids) {
    if (id >= 0 && id < vocab_size) kept.push_back(static_cast<int32_t>(id));
  }
  return kept;
}

Result<std::vector<double>> NumberList(const JsonReader& reader, std::string_view key) {
  std::vector<double> numbers;
  const json::value* value = reader.Find({key});
  if (!value) return numbers;
  if (!value->is_array()) return InvalidData("{}: \"{}\" is not a list of numbers", reader.what(), key);
  for (const json::value& item : value->get_array()) {
    if (!item.is_number()) return InvalidData("{}: \"{}\" is not a list of numbers", reader.what(), key);
    numbers.push_back(item.to_number<double>());
  }
  return numbers;
}

Status ReadScalingFields(const JsonReader& fields, int64_t context, RopeScaling& scaling) {
  using Kind = RopeScaling::Kind;
  ASSIGN_OR_RETURN(const std::string type, fields.String({"rope_type", "type"}, "default"));
  if (type == "default" || type == "none") return OkStatus();
  if (type == "linear") {
    scaling.kind = Kind::kLinear;
  } else if (type == "dynamic") {
    scaling.kind = Kind::kDynamicNtk;
  } else if (type == "yarn") {
    scaling.kind = Kind::kYarn;
  } else if (type == "llama3") {
    scaling.kind = Kind::kLlama3;
  } else if (type == "longrope" || type == "su") {
    scaling.kind = Kind::kLongRope;
  } else {
    return Unsupported("{}: RoPE scaling type \"{}\" is not known; known are linear, dynamic, yarn, llama3, longrope",
                       fields.what(), type);
  }
  const bool needs_factor = scaling.kind != Kind::kLongRope;
  ASSIGN_OR_RETURN(scaling.factor, fields.Number({"factor"}, needs_factor ? std::nullopt : std::optional<double>(1.0)));
  ASSIGN_OR_RETURN(scaling.original_context,
                   fields.Int({"original_max_position_embeddings"}, 1, kMaxLength, scaling.original_context));
  if (scaling.original_context == 0) scaling.original_context = context;
  ASSIGN_OR_RETURN(scaling.low_freq_factor, fields.Number({"low_freq_factor"}, 1.0));
  ASSIGN_OR_RETURN(scaling.high_freq_factor, fields.Number({"high_freq_factor"}, 4.0));
  ASSIGN_OR_RETURN(scaling.beta_fast, fields.Number({"beta_fast"}, 32.0));
  ASSIGN_OR_RETURN(scaling.beta_slow, fields.Number({"beta_slow"}, 1.0));
  ASSIGN_OR_RETURN(scaling.mscale, fields.Number({"mscale"}, 0.0));
  ASSIGN_OR_RETURN(scaling.mscale_all_dim, fields.Number({"mscale_all_dim"}, 0.0));
  if (fields.Has({"attention_factor"})) {
    ASSIGN_OR_RETURN(scaling.attention_factor, fields.Number({"attention_factor"}));
  }
  ASSIGN_OR_RETURN(scaling.short_factor, NumberList(fields, "short_factor"));
  ASSIGN_OR_RETURN(scaling.long_factor, NumberList(fields, "long_factor"));
  return OkStatus();
}

}  // namespace

Result<int32_t> ReadSize(const JsonReader& config, JsonReader::Names names, std::optional<int64_t> fallback) {
  ASSIGN_OR_RETURN(const int64_t value, config.Int(names, 1, kMaxSize, fallback));
  return static_cast<int32_t>(value);
}

Result<int64_t> ReadLayerCount(const JsonReader& config, JsonReader::Names names) {
  return config.Int(names, 1, kMaxLayers);
}

Status ReadCommon(const JsonReader& config, DecoderSpec& spec) {
  if (config.Has({"quantization_config"})) {
    return Unsupported(
        "{}: the checkpoint is quantised (\"quantization_config\"); bring its 16-bit original or a GGUF "
        "file",
        config.what());
  }
  ASSIGN_OR_RETURN(const std::string dtype, config.String({"dtype", "torch_dtype"}, "float32"));
  const std::optional<DType> type = ParseDType(dtype);
  if (!type || (*type != DType::kF32 && !IsFloat16Bit(*type))) {
    return Unsupported("{}: dtype \"{}\"; float32, float16 and bfloat16 are known", config.what(), dtype);
  }
  spec.dtype = *type;
  ASSIGN_OR_RETURN(spec.vocab_size, ReadSize(config, {"vocab_size"}));
  ASSIGN_OR_RETURN(const std::vector<int32_t> bos, ReadIds(config, "bos_token_id", spec.vocab_size));
  if (!bos.empty()) spec.bos_id = bos[0];
  ASSIGN_OR_RETURN(spec.eos_ids, ReadIds(config, "eos_token_id", spec.vocab_size));
  ASSIGN_OR_RETURN(const std::vector<int32_t> pad, ReadIds(config, "pad_token_id", spec.vocab_size));
  if (!pad.empty()) spec.pad_id = pad[0];
  ASSIGN_OR_RETURN(spec.architecture, config.String({"model_type"}, ""));
  return OkStatus();
}

Result<Activation> ParseActivation(const JsonReader& config, JsonReader::Names names,
                                   std::optional<std::string> fallback) {
  ASSIGN_OR_RETURN(const std::string name, config.String(names, std::move(fallback)));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast" || name == "gelu_python_tanh") {
    return Activation::kGeluTanh;
  }
  if (name == "quick_gelu") return Activation::kGeluQuick;
  if (name == "relu") return Activation::kRelu;
  if (name == "relu2" || name == "relu_squared") return Activation::kReluSquared;
  return Unsupported(
      "{}: \"{}\" is \"{}\", an activation that is not known; known are silu, gelu, gelu_new, quick_gelu, relu, relu2",
      config.what(), *names.begin(), name);
}

Result<RopePosition> ReadRope(const JsonReader& config, int64_t dim, int64_t context, double default_theta) {
  RopePosition rope;
  rope.dim = static_cast<int32_t>(dim);
  ASSIGN_OR_RETURN(rope.theta, config.Number({"rope_theta", "rotary_emb_base"}, default_theta));
  // New configs put everything, theta too, into rope_parameters; old ones have rope_scaling.
  ASSIGN_OR_RETURN(const json::object* object, config.Object({"rope_parameters", "rope_scaling"}));
  if (!object) return rope;
  const JsonReader fields(*object, config.what());
  ASSIGN_OR_RETURN(rope.theta, fields.Number({"rope_theta"}, rope.theta));
  // Some configs keep the original length beside the object.
  ASSIGN_OR_RETURN(rope.scaling.original_context, config.Int({"original_max_position_embeddings"}, 1, kMaxLength, 0));
  RETURN_IF_ERROR(ReadScalingFields(fields, context, rope.scaling));
  return rope;
}

Result<RopeScaling> ReadScaling(const JsonReader& fields, int64_t context) {
  RopeScaling scaling;
  RETURN_IF_ERROR(ReadScalingFields(fields, context, scaling));
  return scaling;
}

std::vector<LayerSpec> Repeat(const LayerSpec& layer, int64_t layers) {
  return std::vector<LayerSpec>(static_cast<size_t>(layers), layer);
}

std::string FindPrefix(const TensorSource& source, std::initializer_list<std::string_view> prefixes,
                       std::string_view probe) {
  for (std::string_view prefix : prefixes) {
    if (source.Find(std::string(prefix).append(probe))) return std::string(prefix);
  }
  return std::string(*prefixes.begin());
}

NormRule NormNamed(const std::string& name) { return {WeightRule(name + ".weight"), WeightRule(name + ".bias")}; }

LinearRule LinearNamed(const std::string& name, bool transposed) {
  return {WeightRule(name + ".weight", transposed), WeightRule(name + ".bias")};
}

LinearRule LinearRows(const std::string& name, int64_t first, int64_t count, bool transposed) {
  LinearRule rule;
  rule.weight.rows.push_back({.tensor = name + ".weight", .first = first, .count = count, .transposed = transposed});
  rule.bias.rows.push_back({.tensor = name + ".bias", .first = first, .count = count});
  return rule;
}

void SplitContiguousQkv(const std::string& name, const AttentionSpec& attention, bool transposed, LayerRule& layer) {
  const int64_t q = int64_t{attention.n_heads} * attention.head_dim;
  const int64_t kv = int64_t{attention.n_kv_heads} * attention.head_dim;
  layer.q = LinearRows(name, 0, q, transposed);
  layer.k = LinearRows(name, q, kv, transposed);
  layer.v = LinearRows(name, q + kv, kv, transposed);
}

namespace {

bool HasRows(const TensorSource& source, const std::string& name, int64_t rows) {
  const RawTensor* tensor = source.Find(name);
  return tensor && !tensor->shape.empty() && tensor->shape[0] == rows;
}

}  // namespace

void SplitGroupedQkv(const TensorSource& source, const std::string& name, const AttentionSpec& attention,
                     LayerRule& layer) {
  const int64_t head_dim = attention.head_dim;
  const int64_t queries = attention.n_heads / attention.n_kv_heads * head_dim;
  if (!HasRows(source, name + ".weight", attention.n_kv_heads * (queries + 2 * head_dim))) {
    layer.q = layer.k = layer.v = LinearNamed(name);
    return;
  }
  const auto append = [&](LinearRule& rule, int64_t first, int64_t count) {
    const LinearRule rows = LinearRows(name, first, count);
    rule.weight.rows.push_back(rows.weight.rows[0]);
    rule.bias.rows.push_back(rows.bias.rows[0]);
  };
  for (int64_t group = 0; group < attention.n_kv_heads; ++group) {
    const int64_t first = group * (queries + 2 * head_dim);
    append(layer.q, first, queries);
    append(layer.k, first + queries, head_dim);
    append(layer.v, first + queries + head_dim, head_dim);
  }
}

Status CheckRouter(const TensorSource& source, const std::string& name, int64_t n_experts) {
  if (HasRows(source, name, n_experts)) return OkStatus();
  if (!source.Find(name)) return InvalidData("{}: tensor \"{}\" is missing", source.description(), name);
  return InvalidData("{}: tensor \"{}\" has not as many rows as the config has experts, {}", source.description(), name,
                     n_experts);
}

Status SetHeads(std::string_view what, int64_t width, int64_t heads, int64_t kv_heads, int64_t head_dim,
                AttentionSpec& attention) {
  if (heads > kMaxHeads) {
    return InvalidData("{}: {} attention heads; at most {} are possible", what, heads, kMaxHeads);
  }
  if (kv_heads == 0) kv_heads = heads;
  if (head_dim == 0) {
    if (width % heads != 0) {
      return InvalidData("{}: {} attention heads do not divide the hidden size {}", what, heads, width);
    }
    head_dim = width / heads;
  }
  if (heads % kv_heads != 0) {
    return InvalidData("{}: {} key-value heads do not divide {} attention heads", what, kv_heads, heads);
  }
  attention.n_heads = static_cast<int32_t>(heads);
  attention.n_kv_heads = static_cast<int32_t>(kv_heads);
  attention.head_dim = static_cast<int32_t>(head_dim);
  attention.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  return OkStatus();
}

Status RefuseKeys(const JsonReader& config, JsonReader::Names keys) {
  for (std::string_view key : keys) {
    const json::value* value = config.Find({key});
    if (!value || (value->is_bool() && !value->get_bool())) continue;
    if (value->is_number() && value->to_number<double>() == 0.0) continue;
    return Unsupported("{}: \"{}\" is set, which kvasir does not implement", config.what(), key);
  }
  return OkStatus();
}

NormSpec LayerNormOf(double eps, bool bias) {
  return {.layer_norm = true, .eps = static_cast<float>(eps), .has_bias = bias};
}

NormSpec RmsNormOf(double eps) { return {.eps = static_cast<float>(eps)}; }

Result<int64_t> ReadRotaryDim(const JsonReader& config, int64_t head_dim, JsonReader::Names names, double fallback) {
  ASSIGN_OR_RETURN(double factor, config.Number(names, fallback));
  ASSIGN_OR_RETURN(const json::object* object, config.Object({"rope_parameters"}));
  if (object) {
    ASSIGN_OR_RETURN(factor, JsonReader(*object, config.what()).Number({"partial_rotary_factor"}, factor));
  }
  if (!(factor > 0.0 && factor <= 1.0)) {
    return InvalidData("{}: a partial rotary factor of {}; it must be above 0 and at most 1", config.what(), factor);
  }
  return static_cast<int64_t>(static_cast<double>(head_dim) * factor);
}

Result<bool> ReadLayerTypes(const JsonReader& config, int64_t window, DecoderSpec& spec) {
  const json::value* value = config.Find({"layer_types"});
  if (!value) return false;
  if (!value->is_array() || value->get_array().size() != spec.layers.size()) {
    return InvalidData("{}: \"layer_types\" is not a list of {} names", config.what(), spec.layers.size());
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const json::value& item = value->get_array()[i];
    const std::string_view type = item.is_string() ? std::string_view(item.get_string()) : std::string_view();
    if (type == "sliding_attention") {
      spec.layers[i].attention.window = window;
    } else if (type == "full_attention") {
      spec.layers[i].attention.window = 0;
    } else {
      return Unsupported("{}: layer type \"{}\" of layer {} is not known; known are full_attention, sliding_attention",
                         config.what(), type, i);
    }
  }
  return true;
}

Status ReadGgufCommon(const GgufFile& file, const std::string& arch, DecoderSpec& spec) {
  spec.architecture = arch;
  const RawTensor* embedding = file.Find("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2 || embedding->shape[0] < 1 || embedding->shape[0] > kMaxSize) {
    return InvalidData("{}: tensor \"token_embd.weight\" is missing or no matrix", file.description());
  }
  spec.vocab_size = static_cast<int32_t>(embedding->shape[0]);
  spec.dtype = IsFloat16Bit(embedding->dtype) ? embedding->dtype : DType::kF32;
  ASSIGN_OR_RETURN(const int64_t width, file.Int(arch + ".embedding_length", 1, kMaxSize));
  spec.width = static_cast<int32_t>(width);
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, file.Int(arch + ".context_length", 0, kMaxLength, 0));
  const auto read_id = [&](const char* key) -> Result<std::optional<int32_t>> {
    ASSIGN_OR_RETURN(const int64_t id, file.Int(key, -1, INT64_C(0xffffffff), -1));
    if (id < 0 || id >= spec.vocab_size) return std::optional<int32_t>();
    return std::optional<int32_t>(static_cast<int32_t>(id));
  };
  ASSIGN_OR_RETURN(spec.bos_id, read_id("tokenizer.ggml.bos_token_id"));
  ASSIGN_OR_RETURN(spec.pad_id, read_id("tokenizer.ggml.padding_token_id"));
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    ASSIGN_OR_RETURN(const std::optional<int32_t> id, read_id(key));
    if (id && std::find(spec.eos_ids.begin(), spec.eos_ids.end(), *id) == spec.eos_ids.end()) {
      spec.eos_ids.push_back(*id);
    }
  }
  spec.head.tied = file.Find("output.weight") == nullptr;
  return OkStatus();
}

Result<RopePosition> ReadGgufRope(const GgufFile& file, const std::string& arch, int64_t head_dim, bool interleaved) {
  RopePosition rope;
  rope.interleaved = interleaved;
  ASSIGN_OR_RETURN(const int64_t dim, file.Int(arch + ".rope.dimension_count", 1, kMaxSize, head_dim));
  rope.dim = static_cast<int32_t>(dim);
  ASSIGN_OR_RETURN(rope.theta, file.Number(arch + ".rope.freq_base", 10000.0));
  ASSIGN_OR_RETURN(const std::string type, file.String(arch + ".rope.scaling.type", "none"));
  ASSIGN_OR_RETURN(const double linear, file.Number(arch + ".rope.scale_linear", 1.0));
  ASSIGN_OR_RETURN(const double factor, file.Number(arch + ".rope.scaling.factor", linear));
  ASSIGN_OR_RETURN(rope.scaling.original_context,
                   file.Int(arch + ".rope.scaling.original_context_length", 0, kMaxLength, 0));
  if (type == "linear" || (type == "none" && factor != 1.0)) {
    rope.scaling.kind = RopeScaling::Kind::kLinear;
  } else if (type == "yarn") {
    rope.scaling.kind = RopeScaling::Kind::kYarn;
  } else if (type == "longrope") {
    rope.scaling.kind = RopeScaling::Kind::kLongRope;
  } else if (type != "none") {
    return Unsupported("{}: RoPE scaling type \"{}\" is not known", file.description(), type);
  }
  rope.scaling.factor = factor;
  if (file.FindValue(arch + ".rope.scaling.attn_factor")) {
    ASSIGN_OR_RETURN(rope.scaling.attention_factor, file.Number(arch + ".rope.scaling.attn_factor"));
  }
  const auto read_factors = [&](const char* name, std::vector<double>& out) -> Status {
    const RawTensor* tensor = file.Find(name);
    if (!tensor) return OkStatus();
    if (tensor->dtype != DType::kF32 || tensor->elements() != dim / 2) {
      return InvalidData("{}: tensor \"{}\" must hold {} fp32 values", file.description(), name, dim / 2);
    }
    for (int64_t i = 0; i < dim / 2; ++i) {
      float value;
      __builtin_memcpy(&value, tensor->data + i * 4, 4);
      out.push_back(value);
    }
    return OkStatus();
  };
  RETURN_IF_ERROR(read_factors("rope_freqs.weight", rope.scaling.frequency_divisors));
  RETURN_IF_ERROR(read_factors("rope_factors_short.weight", rope.scaling.short_factor));
  RETURN_IF_ERROR(read_factors("rope_factors_long.weight", rope.scaling.long_factor));
  // Converters write these tables without naming the type.
  if (!rope.scaling.long_factor.empty()) rope.scaling.kind = RopeScaling::Kind::kLongRope;
  return rope;
}

Status ReadGgufLayer(const GgufFile& file, const std::string& arch, const GgufShape& shape, DecoderSpec& spec,
                     LayerSpec& layer) {
  const auto has = [&](const char* name) { return file.Find(name) != nullptr; };
  const std::string eps_key = arch + (shape.layer_norm ? ".attention.layer_norm_epsilon"  //
                                                       : ".attention.layer_norm_rms_epsilon");
  ASSIGN_OR_RETURN(const double eps, file.Number(eps_key));
  const NormSpec norm = shape.layer_norm ? LayerNormOf(eps, has("output_norm.bias")) : RmsNormOf(eps);
  layer.attn_norm = layer.ffn_norm = spec.final_norm = norm;

  ASSIGN_OR_RETURN(const int64_t heads, file.Int(arch + ".attention.head_count", 1, kMaxSize));
  ASSIGN_OR_RETURN(const int64_t kv_heads, file.Int(arch + ".attention.head_count_kv", 1, kMaxSize, heads));
  ASSIGN_OR_RETURN(const int64_t head_dim, file.Int(arch + ".attention.key_length", 0, kMaxSize, 0));
  ASSIGN_OR_RETURN(const int64_t value_dim, file.Int(arch + ".attention.value_length", 0, kMaxSize, head_dim));
  if (value_dim != head_dim) {
    return Unsupported("{}: keys of {} and values of {} per head; they must have one size", file.description(),
                       head_dim, value_dim);
  }
  RETURN_IF_ERROR(SetHeads(file.description(), spec.width, heads, kv_heads, head_dim, layer.attention));
  layer.attention.qkv_bias = has("blk.0.attn_qkv.bias") || has("blk.0.attn_q.bias");
  layer.attention.out_bias = has("blk.0.attn_output.bias");

  ASSIGN_OR_RETURN(const int64_t ffn, file.Int(arch + ".feed_forward_length", 1, kMaxSize));
  layer.ffn.width = static_cast<int32_t>(ffn);
  layer.ffn.gated = shape.gated;
  layer.ffn.activation = shape.activation;
  layer.ffn.up_bias = has("blk.0.ffn_up.bias");
  layer.ffn.down_bias = has("blk.0.ffn_down.bias");
  ASSIGN_OR_RETURN(const int64_t experts, file.Int(arch + ".expert_count", 0, kMaxSize, 0));
  ASSIGN_OR_RETURN(const int64_t used, file.Int(arch + ".expert_used_count", 0, kMaxSize, 0));
  layer.ffn.moe.n_experts = static_cast<int32_t>(experts);
  layer.ffn.moe.top_k = static_cast<int32_t>(used);
  spec.head.bias = has("output.bias");
  return OkStatus();
}

Status FinishGguf(const GgufFile& file, const std::string& arch, const LayerSpec& layer, DecoderSpec& spec) {
  ASSIGN_OR_RETURN(const int64_t layers, file.Int(arch + ".block_count", 1, kMaxLayers));
  spec.layers = Repeat(layer, layers);
  return spec.Validate();
}

namespace {

/// New files stack the experts in one tensor, old ones have a tensor for each.
LinearRule GgufExpert(const GgufFile& file, const std::string& at, std::string_view part, int64_t expert) {
  LinearRule rule;
  const std::string stacked = fmt::format("{}ffn_{}_exps.weight", at, part);
  if (file.Find(stacked)) {
    rule.weight.rows.push_back({.tensor = stacked, .slice = expert});
  } else {
    rule.weight = WeightRule(fmt::format("{}ffn_{}.{}.weight", at, part, expert));
  }
  return rule;
}

}  // namespace

Result<WeightRules> GgufRules(const DecoderSpec& spec, const GgufFile& file, bool permuted) {
  WeightRules rules;
  rules.embedding = WeightRule("token_embd.weight");
  rules.positions = WeightRule("position_embd.weight");
  rules.embedding_norm = NormNamed("token_embd_norm");
  rules.final_norm = NormNamed("output_norm");
  rules.head = LinearNamed("output");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("blk.{}.", i);
    const LayerSpec& layer_spec = spec.layers[i];
    const AttentionSpec& attention = layer_spec.attention;
    LayerRule layer;
    layer.attn_norm = NormNamed(at + "attn_norm");
    layer.ffn_norm = NormNamed(at + "ffn_norm");
    layer.attn_branch_norm = NormNamed(at + "post_attention_norm");
    layer.ffn_branch_norm = NormNamed(at + "post_ffw_norm");
    layer.q_norm = NormNamed(at + "attn_q_norm");
    layer.k_norm = NormNamed(at + "attn_k_norm");
    if (file.Find(at + "attn_qkv.weight")) {
      SplitContiguousQkv(at + "attn_qkv", attention, false, layer);
    } else if (permuted) {
      layer.q = UnpermutedHeads(file, at + "attn_q", attention.n_heads, attention.head_dim);
      layer.k = UnpermutedHeads(file, at + "attn_k", attention.n_kv_heads, attention.head_dim);
      layer.v = LinearNamed(at + "attn_v");
    } else {
      layer.q = LinearNamed(at + "attn_q");
      layer.k = LinearNamed(at + "attn_k");
      layer.v = LinearNamed(at + "attn_v");
    }
    layer.out = LinearNamed(at + "attn_output");
    layer.ffn = {LinearNamed(at + "ffn_gate"), LinearNamed(at + "ffn_up"), LinearNamed(at + "ffn_down")};
    layer.router = LinearNamed(at + "ffn_gate_inp");
    if (layer_spec.ffn.moe.n_experts > 0) {
      RETURN_IF_ERROR(CheckRouter(file, at + "ffn_gate_inp.weight", layer_spec.ffn.moe.n_experts));
    }
    for (int64_t e = 0; e < layer_spec.ffn.moe.n_experts; ++e) {
      layer.experts.push_back(
          {GgufExpert(file, at, "gate", e), GgufExpert(file, at, "up", e), GgufExpert(file, at, "down", e)});
    }
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"};
  return rules;
}

LinearRule UnpermutedHeads(const TensorSource& source, const std::string& name, int64_t heads, int64_t head_dim) {
  if (!HasRows(source, name + ".weight", heads * head_dim)) return LinearNamed(name);
  LinearRule rule;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t half = 0; half < 2; ++half) {
      const RowRule rows{.first = h * head_dim + half, .count = head_dim / 2, .step = 2};
      rule.weight.rows.push_back(rows);
      rule.weight.rows.back().tensor = name + ".weight";
      rule.bias.rows.push_back(rows);
      rule.bias.rows.back().tensor = name + ".bias";
    }
  }
  return rule;
}

}  // namespace kvasir::families
