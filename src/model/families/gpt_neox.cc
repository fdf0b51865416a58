// GPT-NeoX (Pythia, RedPajama, Dolly): parallel branches with a norm each, or sequential ones; RoPE on part of each
// head; packed QKV with q, k, v of every head together. Black 2022, arXiv:2204.06745.
#include "model/families/common.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "gpt_neox";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"hidden_size"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"max_position_embeddings"}, 1, kMaxLength, 2048));
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, false));
  ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_eps"}, 1e-5));
  LayerSpec layer;
  layer.attn_norm = layer.ffn_norm = spec.final_norm = LayerNormOf(eps);
  ASSIGN_OR_RETURN(layer.parallel, config.Bool({"use_parallel_residual"}, true));
  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"num_attention_heads"}, 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, 0, 0, layer.attention));
  ASSIGN_OR_RETURN(layer.attention.qkv_bias, config.Bool({"attention_bias"}, true));
  layer.attention.out_bias = layer.attention.qkv_bias;
  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"intermediate_size"}));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"hidden_act"}, "gelu"));
  layer.ffn.gated = false;
  layer.ffn.up_bias = layer.ffn.down_bias = true;
  ASSIGN_OR_RETURN(const int64_t rotary,
                   ReadRotaryDim(config, layer.attention.head_dim, {"rotary_pct", "partial_rotary_factor"}, 0.25));
  ASSIGN_OR_RETURN(spec.position, ReadRope(config, rotary, spec.context));
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = FindPrefix(source, {"gpt_neox.", ""}, "embed_in.weight");
  rules.embedding = WeightRule(prefix + "embed_in.weight");
  rules.final_norm = NormNamed(prefix + "final_layer_norm");
  rules.head = LinearNamed("embed_out");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    LayerRule layer;
    layer.attn_norm = NormNamed(at + "input_layernorm");
    layer.ffn_norm = NormNamed(at + "post_attention_layernorm");
    SplitGroupedQkv(source, at + "attention.query_key_value", spec.layers[i].attention, layer);
    layer.out = LinearNamed(at + "attention.dense");
    layer.ffn.up = LinearNamed(at + "mlp.dense_h_to_4h");
    layer.ffn.down = LinearNamed(at + "mlp.dense_4h_to_h");
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {"rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"};
  if (spec.head.tied) rules.ignored_suffixes.push_back("embed_out.weight");
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "gpt_neox";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "gptneox", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "gptneox", {.layer_norm = true, .gated = false, .activation = Activation::kGelu},
                                spec, layer));
  ASSIGN_OR_RETURN(layer.parallel, file.Bool("gptneox.use_parallel_residual", true));
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "gptneox", layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, "gptneox", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily GptNeoX() {
  return {.name = "gpt_neox",
          .model_types = {"gpt_neox"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"gptneox"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
