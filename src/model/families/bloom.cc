// BLOOM: ALiBi, a LayerNorm right after the embedding, tanh GELU, biases everywhere, packed QKV with q, k, v of every
// head together. Scao 2022, arXiv:2211.05100.
#include "model/families/common.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "bloom";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  RETURN_IF_ERROR(RefuseKeys(config, {"apply_residual_connection_post_layernorm"}));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"hidden_size", "n_embed", "n_embd"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"seq_length", "max_position_embeddings"}, 1, kMaxLength, 2048));
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));
  ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_epsilon"}, 1e-5));
  LayerSpec layer;
  layer.attn_norm = layer.ffn_norm = spec.final_norm = spec.embedding_norm = LayerNormOf(eps);
  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"n_head", "num_attention_heads"}, 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, 0, 0, layer.attention));
  layer.attention.qkv_bias = layer.attention.out_bias = true;
  layer.ffn = {
      .width = 4 * spec.width, .activation = Activation::kGeluTanh, .gated = false, .up_bias = true, .down_bias = true};
  spec.position = AlibiPosition{.slopes = AlibiSlopes(layer.attention.n_heads)};
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"n_layer", "num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = FindPrefix(source, {"transformer.", ""}, "word_embeddings.weight");
  rules.embedding = WeightRule(prefix + "word_embeddings.weight");
  rules.embedding_norm = NormNamed(prefix + "word_embeddings_layernorm");
  rules.final_norm = NormNamed(prefix + "ln_f");
  rules.head = LinearNamed("lm_head");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}h.{}.", prefix, i);
    LayerRule layer;
    layer.attn_norm = NormNamed(at + "input_layernorm");
    layer.ffn_norm = NormNamed(at + "post_attention_layernorm");
    SplitGroupedQkv(source, at + "self_attention.query_key_value", spec.layers[i].attention, layer);
    layer.out = LinearNamed(at + "self_attention.dense");
    layer.ffn.up = LinearNamed(at + "mlp.dense_h_to_4h");
    layer.ffn.down = LinearNamed(at + "mlp.dense_4h_to_h");
    rules.layers.push_back(std::move(layer));
  }
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "bloom";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "bloom", spec));
  RETURN_IF_ERROR(ReadGgufLayer(
      file, "bloom", {.layer_norm = true, .gated = false, .activation = Activation::kGeluTanh}, spec, layer));
  spec.embedding_norm = spec.final_norm;
  spec.position = AlibiPosition{.slopes = AlibiSlopes(layer.attention.n_heads)};
  RETURN_IF_ERROR(FinishGguf(file, "bloom", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily Bloom() {
  return {.name = "bloom",
          .model_types = {"bloom"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"bloom"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
