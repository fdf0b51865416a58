// GPTBigCode (StarCoder, SantaCoder, OctoCoder): GPT-2 with plain linear layers and one key-value head.
// Li 2023, arXiv:2305.06161; Shazeer 2019, arXiv:1911.02150.
#include "model/families/common.h"

namespace kvasir::families {
namespace {

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "gpt_bigcode";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  RETURN_IF_ERROR(RefuseKeys(config, {"add_cross_attention"}));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"n_embd", "hidden_size"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"n_positions", "max_position_embeddings"}, 1, kMaxSize, 1024));
  spec.position = LearnedPosition{.rows = spec.context};
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));
  ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_epsilon"}, 1e-5));
  LayerSpec layer;
  layer.attn_norm = layer.ffn_norm = spec.final_norm = LayerNormOf(eps);
  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"n_head", "num_attention_heads"}, 1, kMaxSize));
  ASSIGN_OR_RETURN(const bool multi_query, config.Bool({"multi_query"}, true));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, multi_query ? 1 : heads, 0, layer.attention));
  ASSIGN_OR_RETURN(const bool scaled, config.Bool({"scale_attn_weights"}, true));
  if (!scaled) layer.attention.scale = 1.0f;
  layer.attention.qkv_bias = layer.attention.out_bias = true;
  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"n_inner"}, int64_t{4} * spec.width));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"activation_function"}, "gelu_pytorch_tanh"));
  layer.ffn.gated = false;
  layer.ffn.up_bias = layer.ffn.down_bias = true;
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"n_layer", "num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = FindPrefix(source, {"transformer.", ""}, "wte.weight");
  rules.embedding = WeightRule(prefix + "wte.weight");
  rules.positions = WeightRule(prefix + "wpe.weight");
  rules.final_norm = NormNamed(prefix + "ln_f");
  rules.head = LinearNamed("lm_head");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}h.{}.", prefix, i);
    LayerRule layer;
    layer.attn_norm = NormNamed(at + "ln_1");
    layer.ffn_norm = NormNamed(at + "ln_2");
    // One group of all heads for MQA; without it q, k, v of each head follow each other.
    SplitGroupedQkv(source, at + "attn.c_attn", spec.layers[i].attention, layer);
    layer.out = LinearNamed(at + "attn.c_proj");
    layer.ffn.up = LinearNamed(at + "mlp.c_fc");
    layer.ffn.down = LinearNamed(at + "mlp.c_proj");
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {".attn.bias", ".attn.masked_bias"};
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "gpt_bigcode";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "starcoder", spec));
  RETURN_IF_ERROR(ReadGgufLayer(
      file, "starcoder", {.layer_norm = true, .gated = false, .activation = Activation::kGeluTanh}, spec, layer));
  spec.position = LearnedPosition{.rows = spec.context};
  RETURN_IF_ERROR(FinishGguf(file, "starcoder", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily GptBigCode() {
  return {.name = "gpt_bigcode",
          .model_types = {"gpt_bigcode"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"starcoder"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
