// Phi-3, 3.5 and 4: LLaMA's shape with QKV packed in one matrix, gate and up in another, a window, and LongRoPE.
// Abdin 2024, arXiv:2404.14219.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "phi3";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {.context = 4096, .eps = 1e-5}, spec, layer));
  ASSIGN_OR_RETURN(layer.attention.window, config.Int({"sliding_window"}, 0, kMaxLength, 0));
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

/// One matrix holds the gate's rows, then the up projection's.
void SplitGateUp(const std::string& name, int64_t width, FfnRule& ffn) {
  ffn.gate = LinearRows(name, 0, width);
  ffn.up = LinearRows(name, width, width);
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules = LlamaShapeRules(spec, source);
  const std::string prefix = LlamaShapePrefix(source);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.", prefix, i);
    SplitContiguousQkv(at + "self_attn.qkv_proj", spec.layers[i].attention, false, rules.layers[i]);
    SplitGateUp(at + "mlp.gate_up_proj", spec.layers[i].ffn.width, rules.layers[i].ffn);
  }
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "phi3";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "phi3", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "phi3", {}, spec, layer));
  ASSIGN_OR_RETURN(layer.attention.window, file.Int("phi3.attention.sliding_window", 0, kMaxLength, 0));
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "phi3", layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, "phi3", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) {
  ASSIGN_OR_RETURN(WeightRules rules, GgufRules(spec, file, false));
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    SplitGateUp(fmt::format("blk.{}.ffn_up", i), spec.layers[i].ffn.width, rules.layers[i].ffn);
  }
  return rules;
}

}  // namespace

ModelFamily Phi3() {
  return {.name = "phi3",
          .model_types = {"phi3"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"phi3"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf,
          .gguf_written_as = "phi3"};
}

}  // namespace kvasir::families
