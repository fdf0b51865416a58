// A PaLM-style block: x += attention(norm x) + FFN(norm x), with multi-query attention, SwiGLU, RoPE, LayerNorms
// without bias, no other biases, and tied embeddings. Chowdhery 2022, arXiv:2204.02311.
//
// No checkpoint format is published, so this one is ours. config.json: model_type "palm", hidden_size,
// intermediate_size, num_hidden_layers, num_attention_heads, head_dim, num_key_value_heads (1), layer_norm_eps (1e-5),
// rope_theta, max_position_embeddings, tie_word_embeddings (true), fused_projection (false). Tensors:
// model.embed_tokens, model.norm, lm_head if untied, and in model.layers.N: norm, attn.{q,k,v,o}_proj,
// mlp.{gate,up,down}_proj; with fused_projection one fused_proj with the rows [q | k | v | up | gate] instead of those
// five, the order that common re-implementations have.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "palm";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {.kv_heads = 1, .eps = 1e-5, .tied = true, .layer_norm = true}, spec, layer));
  layer.parallel = true;
  layer.attn_norm->has_bias = spec.final_norm->has_bias = false;
  layer.ffn_norm.reset();
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

void SplitFused(const std::string& name, const LayerSpec& spec, LayerRule& layer) {
  SplitContiguousQkv(name, spec.attention, false, layer);
  const int64_t qkv = int64_t{spec.attention.n_heads + 2 * spec.attention.n_kv_heads} * spec.attention.head_dim;
  layer.ffn.up = LinearRows(name, qkv, spec.ffn.width);
  layer.ffn.gate = LinearRows(name, qkv + spec.ffn.width, spec.ffn.width);
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules = LlamaShapeRules(spec, source);
  const std::string prefix = LlamaShapePrefix(source);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    LayerRule& layer = rules.layers[i];
    layer.attn_norm = NormNamed(at + "norm");
    layer.out = LinearNamed(at + "attn.o_proj");
    if (source.Find(at + "fused_proj.weight")) {
      SplitFused(at + "fused_proj", spec.layers[i], layer);
      continue;
    }
    layer.q = LinearNamed(at + "attn.q_proj");
    layer.k = LinearNamed(at + "attn.k_proj");
    layer.v = LinearNamed(at + "attn.v_proj");
  }
  return rules;
}

}  // namespace

ModelFamily Palm() { return {.name = "palm", .model_types = {"palm"}, .parse = Parse, .rules = Rules}; }

}  // namespace kvasir::families
