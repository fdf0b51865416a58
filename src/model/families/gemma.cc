// Gemma 1 and 2: scaled tied embeddings, RMS norms stored as w - 1 (GGUF has the 1 baked in), tanh-GELU gates, wide
// heads. Gemma 2 adds norms behind both branches, soft caps on scores and logits, and windows in every other layer.
// Gemma Team 2024, arXiv:2403.08295, arXiv:2408.00118.
#include <cmath>

#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

constexpr double kAttentionSoftcap = 50.0;
constexpr double kLogitSoftcap = 30.0;
constexpr int64_t kWindow = 4096;
constexpr int64_t kLayers27B = 46;

/// A number where null means none and absence the default.
Result<double> ReadOptional(const JsonReader& config, std::string_view key, double fallback) {
  if (config.object().contains(key) && !config.Has({key})) return 0.0;
  return config.Number({key}, fallback);
}

void ScaleEmbedding(DecoderSpec& spec) { spec.embedding_scale = std::sqrt(static_cast<float>(spec.width)); }

/// Every layer with an even index has the window.
void AlternateWindows(int64_t window, DecoderSpec& spec) {
  for (size_t i = 0; i < spec.layers.size(); i += 2) spec.layers[i].attention.window = window;
}

Status ReadShape(const JsonReader& config, int64_t kv_heads, DecoderSpec& spec, LayerSpec& layer) {
  RETURN_IF_ERROR(ReadLlamaShape(
      config, {.kv_heads = kv_heads, .head_dim = 256, .context = 8192, .tied = true, .activation = "gelu_new"}, spec,
      layer));
  // "hidden_act" of the first files said "gelu", which no implementation took by its word.
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"hidden_activation"}, "gelu_pytorch_tanh"));
  ASSIGN_OR_RETURN(layer.attention.qkv_bias, config.Bool({"attention_bias"}, false));
  layer.attention.out_bias = layer.attention.qkv_bias;
  layer.attn_norm->plus_one = layer.ffn_norm->plus_one = spec.final_norm->plus_one = true;
  ScaleEmbedding(spec);
  return OkStatus();
}

Result<DecoderSpec> Parse1(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "gemma";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadShape(config, 16, spec, layer));
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<DecoderSpec> Parse2(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "gemma2";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadShape(config, 4, spec, layer));
  layer.attn_branch_norm = layer.ffn_branch_norm = layer.attn_norm;
  ASSIGN_OR_RETURN(const double scalar, config.Number({"query_pre_attn_scalar"}, 256.0));
  if (!(scalar > 0.0)) {
    return InvalidData("{}: query_pre_attn_scalar is {}; it must be above 0", config.what(), scalar);
  }
  layer.attention.scale = static_cast<float>(1.0 / std::sqrt(scalar));
  ASSIGN_OR_RETURN(const double cap, ReadOptional(config, "attn_logit_softcapping", kAttentionSoftcap));
  layer.attention.softcap = static_cast<float>(cap);
  ASSIGN_OR_RETURN(const double logit_cap, ReadOptional(config, "final_logit_softcapping", kLogitSoftcap));
  spec.head.softcap = static_cast<float>(logit_cap);
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  ASSIGN_OR_RETURN(const int64_t window, config.Int({"sliding_window"}, 0, kMaxLength, kWindow));
  ASSIGN_OR_RETURN(const bool listed, ReadLayerTypes(config, window, spec));
  if (!listed) AlternateWindows(window, spec);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules1(const DecoderSpec& spec, const TensorSource& source) {
  return LlamaShapeRules(spec, source);
}

Result<WeightRules> Rules2(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules = LlamaShapeRules(spec, source);
  const std::string prefix = LlamaShapePrefix(source);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    rules.layers[i].attn_branch_norm = NormNamed(at + "post_attention_layernorm");
    rules.layers[i].ffn_norm = NormNamed(at + "pre_feedforward_layernorm");
    rules.layers[i].ffn_branch_norm = NormNamed(at + "post_feedforward_layernorm");
  }
  return rules;
}

Result<DecoderSpec> ParseGguf1(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "gemma";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "gemma", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "gemma", {.activation = Activation::kGeluTanh}, spec, layer));
  ScaleEmbedding(spec);
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "gemma", layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, "gemma", layer, spec));
  return spec;
}

Result<DecoderSpec> ParseGguf2(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "gemma2";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "gemma2", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "gemma2", {.activation = Activation::kGeluTanh}, spec, layer));
  ScaleEmbedding(spec);
  layer.attn_branch_norm = layer.ffn_branch_norm = layer.attn_norm;
  ASSIGN_OR_RETURN(const double cap, file.Number("gemma2.attn_logit_softcapping", kAttentionSoftcap));
  layer.attention.softcap = static_cast<float>(cap);
  ASSIGN_OR_RETURN(const double logit_cap, file.Number("gemma2.final_logit_softcapping", kLogitSoftcap));
  spec.head.softcap = static_cast<float>(logit_cap);
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "gemma2", layer.attention.head_dim, false));
  ASSIGN_OR_RETURN(const int64_t layers, file.Int("gemma2.block_count", 1, kMaxLayers));
  if (layers == kLayers27B) {
    // The file does not say the scale; the 27B model alone scales by width/heads instead of the head size.
    const int32_t width_per_head = spec.width / layer.attention.n_heads;
    layer.attention.scale = 1.0f / std::sqrt(static_cast<float>(width_per_head));
  }
  spec.layers = Repeat(layer, layers);
  ASSIGN_OR_RETURN(const int64_t window, file.Int("gemma2.attention.sliding_window", 0, kMaxLength, kWindow));
  AlternateWindows(window, spec);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily Gemma() {
  return {.name = "gemma",
          .model_types = {"gemma"},
          .parse = Parse1,
          .rules = Rules1,
          .gguf_architectures = {"gemma"},
          .parse_gguf = ParseGguf1,
          .rules_gguf = RulesGguf,
          .gguf_written_as = "gemma"};
}

ModelFamily Gemma2() {
  return {.name = "gemma2",
          .model_types = {"gemma2"},
          .parse = Parse2,
          .rules = Rules2,
          .gguf_architectures = {"gemma2"},
          .parse_gguf = ParseGguf2,
          .rules_gguf = RulesGguf,
          .gguf_written_as = "gemma2"};
}

}  // namespace kvasir::families
