// OPT (and Galactica): learned positions two rows ahead, ReLU, biases; the 350M model normalises after each residual
// addition and has a narrower embedding with projections around the layers. Zhang 2022, arXiv:2205.01068.
#include "model/families/common.h"

namespace kvasir::families {
namespace {

constexpr int64_t kPositionOffset = 2;
constexpr double kEps = 1e-5;  // not configurable

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "opt";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"hidden_size"}));
  ASSIGN_OR_RETURN(spec.embedding_width, ReadSize(config, {"word_embed_proj_dim"}, spec.width));
  spec.project_in = spec.project_out = spec.embedding_width != spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"max_position_embeddings"}, 1, kMaxSize, 2048));
  spec.position = LearnedPosition{.rows = spec.context + kPositionOffset, .offset = kPositionOffset};
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));

  ASSIGN_OR_RETURN(const bool affine, config.Bool({"layer_norm_elementwise_affine"}, true));
  NormSpec norm = LayerNormOf(kEps, affine);
  norm.has_weight = affine;
  LayerSpec layer;
  ASSIGN_OR_RETURN(const bool norm_before, config.Bool({"do_layer_norm_before"}, true));
  ASSIGN_OR_RETURN(const bool no_final_norm, config.Bool({"_remove_final_layer_norm"}, false));
  if (norm_before) {
    layer.attn_norm = layer.ffn_norm = norm;
    if (!no_final_norm) spec.final_norm = norm;
  } else {
    layer.attn_residual_norm = layer.ffn_residual_norm = norm;
  }

  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"num_attention_heads"}, 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, 0, 0, layer.attention));
  ASSIGN_OR_RETURN(const bool bias, config.Bool({"enable_bias"}, true));
  layer.attention.qkv_bias = layer.attention.out_bias = layer.ffn.up_bias = layer.ffn.down_bias = bias;
  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"ffn_dim"}));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"activation_function"}, "relu"));
  layer.ffn.gated = false;
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = FindPrefix(source, {"model.decoder.", "decoder."}, "embed_tokens.weight");
  rules.embedding = WeightRule(prefix + "embed_tokens.weight");
  rules.positions = WeightRule(prefix + "embed_positions.weight");
  rules.project_in = WeightRule(prefix + "project_in.weight");
  rules.project_out = WeightRule(prefix + "project_out.weight");
  rules.final_norm = NormNamed(prefix + "final_layer_norm");
  rules.head = LinearNamed("lm_head");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    LayerRule layer;
    // One name for both places of a norm: the spec says which of them is used.
    layer.attn_norm = layer.attn_residual_norm = NormNamed(at + "self_attn_layer_norm");
    layer.ffn_norm = layer.ffn_residual_norm = NormNamed(at + "final_layer_norm");
    layer.q = LinearNamed(at + "self_attn.q_proj");
    layer.k = LinearNamed(at + "self_attn.k_proj");
    layer.v = LinearNamed(at + "self_attn.v_proj");
    layer.out = LinearNamed(at + "self_attn.out_proj");
    layer.ffn.up = LinearNamed(at + "fc1");
    layer.ffn.down = LinearNamed(at + "fc2");
    rules.layers.push_back(std::move(layer));
  }
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

}  // namespace

ModelFamily Opt() { return {.name = "opt", .model_types = {"opt"}, .parse = Parse, .rules = Rules}; }

}  // namespace kvasir::families
