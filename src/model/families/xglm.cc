// XGLM: scaled embeddings plus fixed sinusoids, LayerNorms before both branches, GELU, biases.
// Lin 2021, arXiv:2112.10668; Vaswani 2017, arXiv:1706.03762.
#include <cmath>

#include "model/families/common.h"

namespace kvasir::families {
namespace {

constexpr double kEps = 1e-5;  // not configurable

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "xglm";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  RETURN_IF_ERROR(RefuseKeys(config, {"add_cross_attention"}));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"d_model", "hidden_size"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"max_position_embeddings"}, 1, kMaxLength, 2048));
  spec.position = SinusoidalPosition{.offset = 2};
  ASSIGN_OR_RETURN(const bool scaled, config.Bool({"scale_embedding"}, true));
  if (scaled) spec.embedding_scale = std::sqrt(static_cast<float>(spec.width));
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));
  LayerSpec layer;
  layer.attn_norm = layer.ffn_norm = spec.final_norm = LayerNormOf(kEps);
  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"attention_heads", "num_attention_heads"}, 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, 0, 0, layer.attention));
  layer.attention.qkv_bias = layer.attention.out_bias = true;
  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"ffn_dim"}));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"activation_function"}, "gelu"));
  layer.ffn.gated = false;
  layer.ffn.up_bias = layer.ffn.down_bias = true;
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"num_layers", "num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = FindPrefix(source, {"model.", ""}, "embed_tokens.weight");
  rules.embedding = WeightRule(prefix + "embed_tokens.weight");
  rules.final_norm = NormNamed(prefix + "layer_norm");
  rules.head = LinearNamed("lm_head");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    LayerRule layer;
    layer.attn_norm = NormNamed(at + "self_attn_layer_norm");
    layer.ffn_norm = NormNamed(at + "final_layer_norm");
    layer.q = LinearNamed(at + "self_attn.q_proj");
    layer.k = LinearNamed(at + "self_attn.k_proj");
    layer.v = LinearNamed(at + "self_attn.v_proj");
    layer.out = LinearNamed(at + "self_attn.out_proj");
    layer.ffn.up = LinearNamed(at + "fc1");
    layer.ffn.down = LinearNamed(at + "fc2");
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {"embed_positions.weights"};
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

}  // namespace

ModelFamily Xglm() { return {.name = "xglm", .model_types = {"xglm"}, .parse = Parse, .rules = Rules}; }

}  // namespace kvasir::families
