// Qwen 2, 2.5 and 3: LLaMA's shape with biases on q, k and v (2) or RMS norms of every query and key head (3).
// Yang 2024, arXiv:2407.10671; Yang 2025, arXiv:2505.09388.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

/// The upper layers, from max_window_layers on, have a window if use_sliding_window says so.
Status ReadWindows(const JsonReader& config, DecoderSpec& spec) {
  ASSIGN_OR_RETURN(const bool sliding, config.Bool({"use_sliding_window"}, false));
  ASSIGN_OR_RETURN(const int64_t window, config.Int({"sliding_window"}, 0, kMaxLength, sliding ? 4096 : 0));
  ASSIGN_OR_RETURN(const int64_t first, config.Int({"max_window_layers"}, 0, kMaxSize, 28));
  ASSIGN_OR_RETURN(const bool listed, ReadLayerTypes(config, window, spec));
  if (listed || !sliding) return OkStatus();
  for (size_t i = static_cast<size_t>(first); i < spec.layers.size(); ++i) spec.layers[i].attention.window = window;
  return OkStatus();
}

void NormHeads(double eps, AttentionSpec& attention) {
  attention.qk_norm = QkNorm::kPerHead;
  attention.qk_norm_spec = RmsNormOf(eps);
}

Result<DecoderSpec> Finish(const JsonReader& config, const LayerSpec& layer, DecoderSpec spec) {
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(ReadWindows(config, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<DecoderSpec> Parse2(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "qwen2";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {.kv_heads = 32, .context = 32'768}, spec, layer));
  layer.attention.qkv_bias = true;
  return Finish(config, layer, std::move(spec));
}

Result<DecoderSpec> Parse3(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "qwen3";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {.kv_heads = 32, .head_dim = 128, .context = 32'768}, spec, layer));
  ASSIGN_OR_RETURN(layer.attention.qkv_bias, config.Bool({"attention_bias"}, false));
  layer.attention.out_bias = layer.attention.qkv_bias;
  NormHeads(layer.attn_norm->eps, layer.attention);
  return Finish(config, layer, std::move(spec));
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) { return LlamaShapeRules(spec, source); }

Result<DecoderSpec> ParseGguf(const GgufFile& file, const std::string& arch, bool norm_heads) {
  DecoderSpec spec;
  spec.family = arch;
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, arch, spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, arch, {}, spec, layer));
  if (norm_heads) NormHeads(layer.attn_norm->eps, layer.attention);
  ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, arch, layer.attention.head_dim, false));
  RETURN_IF_ERROR(FinishGguf(file, arch, layer, spec));
  return spec;
}

Result<DecoderSpec> ParseGguf2(const GgufFile& file) { return ParseGguf(file, "qwen2", false); }
Result<DecoderSpec> ParseGguf3(const GgufFile& file) { return ParseGguf(file, "qwen3", true); }

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily Qwen2() {
  return {.name = "qwen2",
          .model_types = {"qwen2"},
          .parse = Parse2,
          .rules = Rules,
          .gguf_architectures = {"qwen2"},
          .parse_gguf = ParseGguf2,
          .rules_gguf = RulesGguf,
          .gguf_written_as = "qwen2"};
}

ModelFamily Qwen3() {
  return {.name = "qwen3",
          .model_types = {"qwen3"},
          .parse = Parse3,
          .rules = Rules,
          .gguf_architectures = {"qwen3"},
          .parse_gguf = ParseGguf3,
          .rules_gguf = RulesGguf,
          .gguf_written_as = "qwen3"};
}

}  // namespace kvasir::families
