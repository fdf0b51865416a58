// GPT-Neo: GPT-2's blocks with unscaled attention, separate projections without bias, and layers that alternate between
// global and local attention (the one published use of GPT-3's bands). Black 2021, doi:10.5281/zenodo.5297715.
#include "model/families/common.h"

namespace kvasir::families {
namespace {

Status SetWindow(const JsonReader& config, const json::value& kind, LayerSpec& layer) {
  const std::string_view name = kind.is_string() ? std::string_view(kind.get_string()) : std::string_view();
  if (name == "local") {
    ASSIGN_OR_RETURN(layer.attention.window, config.Int({"window_size"}, 1, kMaxLength, 256));
    return OkStatus();
  }
  if (name == "global") return OkStatus();
  return Unsupported("{}: attention \"{}\" is not known; known are global, local", config.what(), name);
}

/// "attention_layers": a kind for every layer, what "attention_types" stands for.
Status ReadAttentionLayers(const JsonReader& config, const json::value& kinds, const LayerSpec& layer, int64_t layers,
                           DecoderSpec& spec) {
  if (!kinds.is_array() || static_cast<int64_t>(kinds.get_array().size()) != layers) {
    return InvalidData("{}: \"attention_layers\" is not a list of {} names", config.what(), layers);
  }
  for (const json::value& kind : kinds.get_array()) {
    spec.layers.push_back(layer);
    RETURN_IF_ERROR(SetWindow(config, kind, spec.layers.back()));
  }
  return OkStatus();
}

/// "attention_types": [[[kind, …], repeats], …], which must give one kind for every layer.
Status ReadAttentionTypes(const JsonReader& config, const LayerSpec& layer, int64_t layers, DecoderSpec& spec) {
  const json::value* types = config.Find({"attention_types"});
  const json::value* listed = config.Find({"attention_layers"});
  if (!types && listed) return ReadAttentionLayers(config, *listed, layer, layers, spec);
  const auto malformed = [&] {
    return InvalidData("{}: \"attention_types\" is not a list of [[kind, …], repeats] for {} layers", config.what(),
                       layers);
  };
  if (!types || !types->is_array()) return malformed();
  for (const json::value& entry : types->get_array()) {
    if (!entry.is_array() || entry.get_array().size() != 2) return malformed();
    const json::value& kinds = entry.get_array()[0];
    const json::value& repeats = entry.get_array()[1];
    if (!kinds.is_array() || kinds.get_array().empty() || !repeats.is_int64()) return malformed();
    for (int64_t r = 0; r < repeats.get_int64(); ++r) {
      for (const json::value& kind : kinds.get_array()) {
        if (static_cast<int64_t>(spec.layers.size()) == layers) return malformed();
        spec.layers.push_back(layer);
        RETURN_IF_ERROR(SetWindow(config, kind, spec.layers.back()));
      }
    }
  }
  return static_cast<int64_t>(spec.layers.size()) == layers ? OkStatus() : malformed();
}

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "gpt_neo";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"hidden_size"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"max_position_embeddings"}, 1, kMaxSize, 2048));
  spec.position = LearnedPosition{.rows = spec.context};
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));
  ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_epsilon"}, 1e-5));
  LayerSpec layer;
  layer.attn_norm = layer.ffn_norm = spec.final_norm = LayerNormOf(eps);
  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"num_heads", "num_attention_heads"}, 1, kMaxSize));
  RETURN_IF_ERROR(SetHeads(config.what(), spec.width, heads, 0, 0, layer.attention));
  layer.attention.scale = 1.0f;
  layer.attention.out_bias = true;
  ASSIGN_OR_RETURN(layer.ffn.width, ReadSize(config, {"intermediate_size"}, int64_t{4} * spec.width));
  ASSIGN_OR_RETURN(layer.ffn.activation, ParseActivation(config, {"activation_function"}, "gelu_new"));
  layer.ffn.gated = false;
  layer.ffn.up_bias = layer.ffn.down_bias = true;
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"num_layers", "num_hidden_layers"}));
  RETURN_IF_ERROR(ReadAttentionTypes(config, layer, layers, spec));
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
    layer.q = LinearNamed(at + "attn.attention.q_proj");
    layer.k = LinearNamed(at + "attn.attention.k_proj");
    layer.v = LinearNamed(at + "attn.attention.v_proj");
    layer.out = LinearNamed(at + "attn.attention.out_proj");
    layer.ffn.up = LinearNamed(at + "mlp.c_fc");
    layer.ffn.down = LinearNamed(at + "mlp.c_proj");
    rules.layers.push_back(std::move(layer));
  }
  rules.ignored_suffixes = {".attention.bias", ".attention.masked_bias"};
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

}  // namespace

ModelFamily GptNeo() { return {.name = "gpt_neo", .model_types = {"gpt_neo"}, .parse = Parse, .rules = Rules}; }

}  // namespace kvasir::families
