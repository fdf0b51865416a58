#include "model/families/llama_shape.h"

namespace kvasir::families {

Status ReadLlamaShape(const JsonReader& config, const LlamaShape& shape, DecoderSpec& spec, LayerSpec& layer) {
  RETURN_IF_ERROR(ReadCommon(config, spec));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"hidden_size"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"max_position_embeddings"}, 1, kMaxLength, shape.context));
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, shape.tied));

  if (shape.layer_norm) {
    ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_eps", "norm_eps"}, shape.eps));
    layer.attn_norm = LayerNormOf(eps);
  } else {
    ASSIGN_OR_RETURN(const double eps, config.Number({"rms_norm_eps"}, shape.eps));
    layer.attn_norm = RmsNormOf(eps);
  }
  layer.ffn_norm = spec.final_norm = layer.attn_norm;

  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"num_attention_heads"}, 1, kMaxSize));
  ASSIGN_OR_RETURN(const int64_t kv_heads,
                   config.Int({"num_key_value_heads"}, 1, kMaxSize, shape.kv_heads > 0 ? shape.kv_heads : heads));
  ASSIGN_OR_RETURN(const int64_t head_dim, config.Int({"head_dim"}, 1, kMaxSize, shape.head_dim));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, kv_heads, head_dim, layer.attention));

  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"intermediate_size"}));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"hidden_act"}, std::string(shape.activation)));

  ASSIGN_OR_RETURN(const int64_t rotary,
                   ReadRotaryDim(config, layer.attention.head_dim, {"partial_rotary_factor"}, shape.partial_rotary));
  ASSIGN_OR_RETURN(spec.position, ReadRope(config, rotary, spec.context, shape.theta));
  return OkStatus();
}

Status FillLayers(const JsonReader& config, const LayerSpec& layer, DecoderSpec& spec) {
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  return OkStatus();
}

std::string LlamaShapePrefix(const TensorSource& source) {
  return FindPrefix(source, {"model.", ""}, "embed_tokens.weight");
}

WeightRules LlamaShapeRules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = LlamaShapePrefix(source);
  rules.embedding = WeightRule(prefix + "embed_tokens.weight");
  rules.final_norm = NormNamed(prefix + "norm");
  rules.head = LinearNamed("lm_head");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    LayerRule layer;
    layer.attn_norm = NormNamed(at + "input_layernorm");
    layer.ffn_norm = NormNamed(at + "post_attention_layernorm");
    layer.q = LinearNamed(at + "self_attn.q_proj");
    layer.k = LinearNamed(at + "self_attn.k_proj");
    layer.v = LinearNamed(at + "self_attn.v_proj");
    layer.out = LinearNamed(at + "self_attn.o_proj");
    layer.q_norm = NormNamed(at + "self_attn.q_norm");
    layer.k_norm = NormNamed(at + "self_attn.k_norm");
    layer.ffn = {LinearNamed(at + "mlp.gate_proj"), LinearNamed(at + "mlp.up_proj"), LinearNamed(at + "mlp.down_proj")};
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {"rotary_emb.inv_freq"};
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

}  // namespace kvasir::families
