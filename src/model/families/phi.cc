// Phi-1, 1.5 and 2: parallel branches behind one LayerNorm, RoPE on part of each head, biases everywhere, the head's
// too. Gunasekar 2023, arXiv:2306.11644; Javaheripi 2023.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

void AllBiases(DecoderSpec& spec, LayerSpec& layer) {
  layer.attention.qkv_bias = layer.attention.out_bias = layer.ffn.up_bias = layer.ffn.down_bias = spec.head.bias = true;
}

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "phi";
  LayerSpec layer;
  RETURN_IF_ERROR(RefuseKeys(config, {"qk_layernorm"}));
  RETURN_IF_ERROR(ReadLlamaShape(
      config, {.eps = 1e-5, .partial_rotary = 0.5, .layer_norm = true, .activation = "gelu_new"}, spec, layer));
  layer.parallel = true;
  layer.ffn_norm.reset();
  layer.ffn.gated = false;
  AllBiases(spec, layer);
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules = LlamaShapeRules(spec, source);
  const std::string prefix = LlamaShapePrefix(source);
  rules.final_norm = NormNamed(prefix + "final_layernorm");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    LayerRule& layer = rules.layers[i];
    layer.out = LinearNamed(at + "self_attn.dense");
    layer.ffn.up = LinearNamed(at + "mlp.fc1");
    layer.ffn.down = LinearNamed(at + "mlp.fc2");
  }
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "phi";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "phi2", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "phi2", {.layer_norm = true, .gated = false, .activation = Activation::kGeluTanh},
                                spec, layer));
  layer.parallel = true;
  layer.ffn_norm.reset();
  AllBiases(spec, layer);
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "phi2", layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, "phi2", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily Phi() {
  return {.name = "phi",
          .model_types = {"phi"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"phi2"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
