// StableLM (and StableCode 3B): LLaMA's shape with LayerNorms, RoPE on part of each head, and optionally biases on q,
// k, v and parallel branches. Bellagente 2024, arXiv:2402.17834.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "stablelm";
  LayerSpec layer;
  // Its q and k norms have one weight for every head.
  RETURN_IF_ERROR(RefuseKeys(config, {"qk_layernorm"}));
  RETURN_IF_ERROR(
      ReadLlamaShape(config, {.context = 4096, .eps = 1e-5, .partial_rotary = 0.25, .layer_norm = true}, spec, layer));
  ASSIGN_OR_RETURN(layer.attention.qkv_bias, config.Bool({"use_qkv_bias"}, false));
  ASSIGN_OR_RETURN(layer.parallel, config.Bool({"use_parallel_residual"}, false));
  if (layer.parallel) layer.ffn_norm.reset();
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) { return LlamaShapeRules(spec, source); }

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "stablelm";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "stablelm", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "stablelm", {.layer_norm = true}, spec, layer));
  if (file.Find("blk.0.attn_q_norm.weight")) {
    return Unsupported("{}: has norms of queries and keys, which kvasir does not implement for this family",
                       file.description());
  }
  ASSIGN_OR_RETURN(layer.parallel, file.Bool("stablelm.use_parallel_residual", false));
  if (layer.parallel) layer.ffn_norm.reset();
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "stablelm", layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, "stablelm", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily StableLm() {
  return {.name = "stablelm",
          .model_types = {"stablelm"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"stablelm"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
