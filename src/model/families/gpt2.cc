// GPT-2 and GPT-3's shape: LayerNorms with bias before both branches, learned positions, tanh GELU, biases everywhere,
// packed QKV stored transposed (Conv1D). GPT-3 alternates dense layers with banded ones that see only a window.
// Radford 2019; Brown 2020, arXiv:2005.14165.
#include <cmath>

#include "model/families/common.h"

namespace kvasir::families {
namespace {

/// GPT-3's "attention_layers": "dense" or "banded" for every layer, with "window_size" for the banded ones.
Status ReadBands(const JsonReader& config, DecoderSpec& spec) {
  const json::value* kinds = config.Find({"attention_layers"});
  if (!kinds) return OkStatus();
  if (!kinds->is_array() || kinds->get_array().size() != spec.layers.size()) {
    return InvalidData("{}: \"attention_layers\" is not a list of {} names", config.what(), spec.layers.size());
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const json::value& item = kinds->get_array()[i];
    const std::string_view kind = item.is_string() ? std::string_view(item.get_string()) : std::string_view();
    if (kind == "banded") {
      ASSIGN_OR_RETURN(spec.layers[i].attention.window, config.Int({"window_size"}, 1, kMaxLength));
    } else if (kind != "dense") {
      return Unsupported("{}: attention \"{}\" of layer {} is not known; known are dense, banded", config.what(), kind,
                         i);
    }
  }
  return OkStatus();
}

/// attention scale: 1/sqrt(head_dim), switched off or divided by the layer's number if the config says so.
Status ReadScales(const JsonReader& config, DecoderSpec& spec) {
  ASSIGN_OR_RETURN(const bool scaled, config.Bool({"scale_attn_weights"}, true));
  ASSIGN_OR_RETURN(const bool by_layer, config.Bool({"scale_attn_by_inverse_layer_idx"}, false));
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    float& scale = spec.layers[i].attention.scale;
    if (!scaled) scale = 1.0f;
    if (by_layer) scale /= static_cast<float>(i + 1);
  }
  return OkStatus();
}

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "gpt2";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  RETURN_IF_ERROR(RefuseKeys(config, {"add_cross_attention"}));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"n_embd", "hidden_size"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"n_positions", "max_position_embeddings", "n_ctx"}, 1, kMaxSize, 1024));
  spec.position = LearnedPosition{.rows = spec.context};
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));
  ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_epsilon"}, 1e-5));
  LayerSpec layer;
  layer.attn_norm = layer.ffn_norm = spec.final_norm = LayerNormOf(eps);
  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"n_head", "num_attention_heads"}, 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, 0, 0, layer.attention));
  layer.attention.qkv_bias = layer.attention.out_bias = true;
  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"n_inner"}, int64_t{4} * spec.width));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"activation_function"}, "gelu_new"));
  layer.ffn.gated = false;
  layer.ffn.up_bias = layer.ffn.down_bias = true;
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"n_layer", "num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(ReadScales(config, spec));
  RETURN_IF_ERROR(ReadBands(config, spec));
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
    SplitContiguousQkv(at + "attn.c_attn", spec.layers[i].attention, true, layer);
    layer.out = LinearNamed(at + "attn.c_proj", true);
    layer.ffn.up = LinearNamed(at + "mlp.c_fc", true);
    layer.ffn.down = LinearNamed(at + "mlp.c_proj", true);
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {".attn.bias", ".attn.masked_bias"};
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "gpt2";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "gpt2", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "gpt2", {.layer_norm = true, .gated = false, .activation = Activation::kGeluTanh},
                                spec, layer));
  spec.position = LearnedPosition{.rows = spec.context};
  RETURN_IF_ERROR(FinishGguf(file, "gpt2", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily Gpt2() {
  return {.name = "gpt2",
          .model_types = {"gpt2", "gpt3"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"gpt2"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf,
          .gguf_written_as = "gpt2"};
}

}  // namespace kvasir::families
