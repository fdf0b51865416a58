// Mixtral: Mistral with a mixture of experts in place of the FFN. Jiang 2024, arXiv:2401.04088.
// In GGUF it is architecture "llama" with an expert count.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "mixtral";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {.kv_heads = 8, .context = 131'072, .eps = 1e-5, .theta = 1e6}, spec, layer));
  ASSIGN_OR_RETURN(layer.attention.window, config.Int({"sliding_window"}, 0, kMaxLength, 0));
  ASSIGN_OR_RETURN(layer.ffn.moe.n_experts, ReadSize(config, {"num_local_experts"}, 8));
  ASSIGN_OR_RETURN(layer.ffn.moe.top_k, ReadSize(config, {"num_experts_per_tok"}, 2));
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules = LlamaShapeRules(spec, source);
  const std::string prefix = LlamaShapePrefix(source);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}layers.{}.block_sparse_moe.", prefix, i);
    RETURN_IF_ERROR(CheckRouter(source, at + "gate.weight", spec.layers[i].ffn.moe.n_experts));
    rules.layers[i].router = LinearNamed(at + "gate");
    for (int32_t e = 0; e < spec.layers[i].ffn.moe.n_experts; ++e) {
      const std::string expert = fmt::format("{}experts.{}.", at, e);
      rules.layers[i].experts.push_back(
          {LinearNamed(expert + "w1"), LinearNamed(expert + "w3"), LinearNamed(expert + "w2")});
    }
  }
  return rules;
}

}  // namespace

ModelFamily Mixtral() {
  return {.name = "mixtral", .model_types = {"mixtral"}, .parse = Parse, .rules = Rules, .gguf_written_as = "llama"};
}

}  // namespace kvasir::families
