// LLaMA 1, 2, 3, 3.1, 3.2 and Mistral: pre-norm RMSNorm, RoPE half-split, GQA, SwiGLU.
// Touvron 2023, arXiv:2302.13971; Jiang 2023, arXiv:2310.06825.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "llama";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {}, spec, layer));
  ASSIGN_OR_RETURN(layer.attention.qkv_bias, config.Bool({"attention_bias"}, false));
  layer.attention.out_bias = layer.attention.qkv_bias;
  ASSIGN_OR_RETURN(layer.ffn.up_bias, config.Bool({"mlp_bias"}, false));
  layer.ffn.down_bias = layer.ffn.up_bias;
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) { return LlamaShapeRules(spec, source); }

Result<DecoderSpec> ParseMistral(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "mistral";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {.kv_heads = 8, .context = 131'072}, spec, layer));
  // Absent means 4096, null means none.
  const int64_t fallback = config.object().contains("sliding_window") ? 0 : 4096;
  ASSIGN_OR_RETURN(const int64_t window, config.Int({"sliding_window"}, 0, kMaxLength, fallback));
  layer.attention.window = window;
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(ReadLayerTypes(config, window, spec).status());
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "llama";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "llama", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "llama", {}, spec, layer));
  ASSIGN_OR_RETURN(layer.attention.window, file.Int("llama.attention.sliding_window", 0, kMaxLength, 0));
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "llama", layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, "llama", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, true); }

}  // namespace

ModelFamily Llama() {
  return {.name = "llama",
          .model_types = {"llama"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"llama"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf,
          .gguf_written_as = "llama"};
}

ModelFamily Mistral() {
  return {
      .name = "mistral", .model_types = {"mistral"}, .parse = ParseMistral, .rules = Rules, .gguf_written_as = "llama"};
}

}  // namespace kvasir::families
