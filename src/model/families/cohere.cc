// Cohere's Command-R: parallel branches behind one LayerNorm without bias, RoPE on interleaved pairs, a tied head with
// scaled logits. https://docs.cohere.com/docs/command-r
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

/// What differs from LLaMA's shape, for both file formats.
void MakeParallel(DecoderSpec& spec, LayerSpec& layer) {
  layer.attn_norm->has_bias = false;
  layer.ffn_norm.reset();
  layer.parallel = true;
  spec.final_norm = layer.attn_norm;
}

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "cohere";
  LayerSpec layer;
  // The plus models normalise queries and keys with one weight for every head.
  RETURN_IF_ERROR(RefuseKeys(config, {"use_qk_norm"}));
  RETURN_IF_ERROR(
      ReadLlamaShape(config, {.context = 8192, .eps = 1e-5, .tied = true, .layer_norm = true}, spec, layer));
  MakeParallel(spec, layer);
  ASSIGN_OR_RETURN(layer.attention.qkv_bias, config.Bool({"attention_bias"}, false));
  layer.attention.out_bias = layer.attention.qkv_bias;
  std::get<RopePosition>(spec.position).interleaved = true;
  ASSIGN_OR_RETURN(const double logit_scale, config.Number({"logit_scale"}, 0.0625));
  spec.head.scale = static_cast<float>(logit_scale);
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) { return LlamaShapeRules(spec, source); }

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  const std::string arch = "command-r";
  DecoderSpec spec;
  spec.family = "cohere";
  LayerSpec layer;
  if (file.Find("blk.0.attn_q_norm.weight")) {
    return Unsupported("{}: has norms of queries and keys, which kvasir does not implement for this family",
                       file.description());
  }
  RETURN_IF_ERROR(ReadGgufCommon(file, arch, spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, arch, {.layer_norm = true}, spec, layer));
  MakeParallel(spec, layer);
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, arch, layer.attention.head_dim, true));
  ASSIGN_OR_RETURN(const double logit_scale, file.Number(arch + ".logit_scale", 1.0));
  spec.head.scale = static_cast<float>(logit_scale);
  RETURN_IF_ERROR(FinishGguf(file, arch, layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily Cohere() {
  return {.name = "cohere",
          .model_types = {"cohere"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"command-r"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
