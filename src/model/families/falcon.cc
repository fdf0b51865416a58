// Falcon 7B, 40B, 180B and 11B, and Falcon-RW: parallel or sequential branches, MQA, GQA or MHA from one packed matrix
// whose rows are grouped by key-value head, RoPE or ALiBi. Almazrouei 2023, arXiv:2311.16867.
#include <cmath>

#include "model/families/common.h"

namespace kvasir::families {
namespace {

struct Layout {
  bool new_decoder = false;  // 40B: GQA; by default a norm for each branch
  bool parallel = true;
  int64_t norms = 1;  // of a parallel layer
};

Result<Layout> ReadLayout(const JsonReader& config, const DecoderSpec& spec) {
  Layout layout;
  // The 40B model's first files had a model_type of their own instead of the switch.
  const bool old_40b = spec.architecture == "RefinedWeb" && config.Has({"n_head_kv"});
  ASSIGN_OR_RETURN(layout.new_decoder, config.Bool({"new_decoder_architecture"}, old_40b));
  ASSIGN_OR_RETURN(layout.parallel, config.Bool({"parallel_attn"}, true));
  if (layout.new_decoder && !layout.parallel) {
    return Unsupported("{}: new_decoder_architecture without parallel_attn", config.what());
  }
  ASSIGN_OR_RETURN(layout.norms, config.Int({"num_ln_in_parallel_attn"}, 1, 2, layout.new_decoder ? 2 : 1));
  if (layout.norms == 2 && !layout.new_decoder) {
    return Unsupported("{}: num_ln_in_parallel_attn of 2 without new_decoder_architecture", config.what());
  }
  return layout;
}

Status ReadAttention(const JsonReader& config, const Layout& layout, const DecoderSpec& spec,
                     AttentionSpec& attention) {
  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"num_attention_heads", "n_head"}, 1, kMaxSize));
  int64_t kv_heads = heads;
  if (layout.new_decoder) {
    ASSIGN_OR_RETURN(kv_heads, config.Int({"num_kv_heads", "n_head_kv"}, 1, kMaxSize, heads));
  } else {
    ASSIGN_OR_RETURN(const bool multi_query, config.Bool({"multi_query"}, true));
    if (multi_query) kv_heads = 1;
  }
  return SetHeads(config.what(), spec.width, heads, kv_heads, 0, attention);
}

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "falcon";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  RETURN_IF_ERROR(RefuseKeys(config, {"apply_residual_connection_post_layernorm"}));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"hidden_size", "n_embed"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"max_position_embeddings"}, 1, kMaxLength, 2048));
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));
  ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_epsilon"}, 1e-5));
  ASSIGN_OR_RETURN(const Layout layout, ReadLayout(config, spec));

  LayerSpec layer;
  layer.parallel = layout.parallel;
  layer.attn_norm = spec.final_norm = LayerNormOf(eps);
  if (!layout.parallel || layout.norms == 2) layer.ffn_norm = layer.attn_norm;
  RETURN_IF_ERROR(ReadAttention(config, layout, spec, layer.attention));
  ASSIGN_OR_RETURN(const bool bias, config.Bool({"bias"}, false));
  layer.attention.qkv_bias = layer.attention.out_bias = layer.ffn.up_bias = layer.ffn.down_bias = bias;
  layer.ffn.gated = false;
  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"ffn_hidden_size"}, int64_t{4} * spec.width));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"activation"}, "gelu"));

  ASSIGN_OR_RETURN(const bool alibi, config.Bool({"alibi"}, false));
  if (alibi) {
    // The bias is rounded to bf16, then scaled like the scores.
    spec.position = AlibiPosition{
        .slopes = AlibiSlopes(layer.attention.n_heads), .bf16_rounding = true, .scale = layer.attention.scale};
  } else {
    ASSIGN_OR_RETURN(spec.position, ReadRope(config, layer.attention.head_dim, spec.context));
  }
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"num_hidden_layers", "n_layer"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = FindPrefix(source, {"transformer.", ""}, "word_embeddings.weight");
  rules.embedding = WeightRule(prefix + "word_embeddings.weight");
  rules.final_norm = NormNamed(prefix + "ln_f");
  rules.head = LinearNamed("lm_head");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}h.{}.", prefix, i);
    const LayerSpec& layer_spec = spec.layers[i];
    LayerRule layer;
    const bool two_norms = layer_spec.parallel && layer_spec.ffn_norm;
    layer.attn_norm = NormNamed(at + (two_norms ? "ln_attn" : "input_layernorm"));
    layer.ffn_norm = NormNamed(at + (two_norms ? "ln_mlp" : "post_attention_layernorm"));
    SplitGroupedQkv(source, at + "self_attention.query_key_value", layer_spec.attention, layer);
    layer.out = LinearNamed(at + "self_attention.dense");
    layer.ffn.up = LinearNamed(at + "mlp.dense_h_to_4h");
    layer.ffn.down = LinearNamed(at + "mlp.dense_4h_to_h");
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {"rotary_emb.inv_freq", "self_attention.rotary.inv_freq"};
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "falcon";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "falcon", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "falcon", {.layer_norm = true, .gated = false, .activation = Activation::kGelu},
                                spec, layer));
  layer.parallel = true;
  if (!file.Find("blk.0.attn_norm_2.weight")) layer.ffn_norm.reset();
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "falcon", layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, "falcon", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) {
  ASSIGN_OR_RETURN(WeightRules rules, GgufRules(spec, file, false));
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (!spec.layers[i].ffn_norm) continue;
    // With two norms, GGUF's attn_norm is the FFN's.
    rules.layers[i].ffn_norm = NormNamed(fmt::format("blk.{}.attn_norm", i));
    rules.layers[i].attn_norm = NormNamed(fmt::format("blk.{}.attn_norm_2", i));
  }
  return rules;
}

}  // namespace

ModelFamily Falcon() {
  return {.name = "falcon",
          .model_types = {"falcon", "RefinedWebModel", "RefinedWeb"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"falcon"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
