// MPT: LayerNorms usually without bias, ALiBi or learned positions, packed QKV that may be clipped, no biases.
// MosaicML 2023. Options that published files set otherwise than here are refused.
#include <cmath>

#include "model/families/common.h"

namespace kvasir::families {
namespace {

Result<int64_t> ReadKvHeads(const JsonReader& attn, int64_t heads) {
  ASSIGN_OR_RETURN(const std::string type, attn.String({"attn_type"}, "multihead_attention"));
  if (type == "multihead_attention") return heads;
  if (type == "multiquery_attention") return int64_t{1};
  if (type == "grouped_query_attention") return attn.Int({"kv_n_heads"}, 1, kMaxSize);
  return Unsupported("{}: attn_type \"{}\" is not known", attn.what(), type);
}

Status ReadAttention(const JsonReader& attn, DecoderSpec& spec, int64_t heads, AttentionSpec& attention) {
  RETURN_IF_ERROR(RefuseKeys(attn, {"prefix_lm", "qk_ln", "qk_gn", "rope"}));
  ASSIGN_OR_RETURN(const int64_t kv_heads, ReadKvHeads(attn, heads));
  RETURN_IF_ERROR(SetHeads(attn.what(), spec.width, heads, kv_heads, 0, attention));
  ASSIGN_OR_RETURN(const double scale, attn.Number({"softmax_scale"}, attention.scale));
  attention.scale = static_cast<float>(scale);
  ASSIGN_OR_RETURN(const double clip, attn.Number({"clip_qkv"}, 0.0));
  attention.qkv_clip = static_cast<float>(clip);
  ASSIGN_OR_RETURN(const int64_t window, attn.Int({"sliding_window_size"}, -1, kMaxLength, -1));
  attention.window = std::max<int64_t>(window, 0);
  ASSIGN_OR_RETURN(const bool alibi, attn.Bool({"alibi"}, true));
  if (alibi) {
    ASSIGN_OR_RETURN(const double max_bias, attn.Number({"alibi_bias_max"}, 8.0));
    spec.position = AlibiPosition{.slopes = AlibiSlopes(attention.n_heads, max_bias)};
  } else {
    spec.position = LearnedPosition{.rows = spec.context};
  }
  return OkStatus();
}

Status ReadLogitScale(const JsonReader& config, DecoderSpec& spec) {
  const json::value* value = config.Find({"logit_scale"});
  if (!value) return OkStatus();
  if (value->is_string()) {
    if (value->get_string() != "inv_sqrt_d_model") {
      return Unsupported("{}: logit_scale \"{}\" is not known", config.what(), std::string_view(value->get_string()));
    }
    spec.head.scale = 1.0f / std::sqrt(static_cast<float>(spec.width));
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const double scale, config.Number({"logit_scale"}));
  spec.head.scale = static_cast<float>(scale);
  return OkStatus();
}

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "mpt";
  RETURN_IF_ERROR(ReadCommon(config, spec));
  ASSIGN_OR_RETURN(spec.width, ReadSize(config, {"d_model", "hidden_size"}));
  spec.embedding_width = spec.width;
  ASSIGN_OR_RETURN(spec.context, config.Int({"max_seq_len"}, 1, kMaxLength, 2048));
  ASSIGN_OR_RETURN(spec.head.tied, config.Bool({"tie_word_embeddings"}, true));
  RETURN_IF_ERROR(ReadLogitScale(config, spec));
  ASSIGN_OR_RETURN(const std::string norm_type, config.String({"norm_type"}, "low_precision_layernorm"));
  if (norm_type != "low_precision_layernorm" && norm_type != "layernorm") {
    return Unsupported("{}: norm_type \"{}\"; layernorm is known", config.what(), norm_type);
  }
  ASSIGN_OR_RETURN(const bool no_bias, config.Bool({"no_bias"}, true));
  ASSIGN_OR_RETURN(const double eps, config.Number({"layer_norm_epsilon"}, 1e-5));
  LayerSpec layer;
  layer.attn_norm = layer.ffn_norm = spec.final_norm = LayerNormOf(eps, !no_bias);

  ASSIGN_OR_RETURN(const int64_t heads, config.Int({"n_heads", "num_attention_heads"}, 1, kMaxSize));
  ASSIGN_OR_RETURN(const json::object* attn, config.Object({"attn_config"}));
  const json::object nothing;
  RETURN_IF_ERROR(
      ReadAttention(JsonReader(attn ? *attn : nothing, config.what() + ": attn_config"), spec, heads, layer.attention));
  ASSIGN_OR_RETURN(const json::object* ffn, config.Object({"ffn_config"}));
  if (ffn) {
    ASSIGN_OR_RETURN(const std::string type, JsonReader(*ffn, config.what()).String({"ffn_type"}, "mptmlp"));
    if (type != "mptmlp") return Unsupported("{}: ffn_type \"{}\"; mptmlp is known", config.what(), type);
  }
  ASSIGN_OR_RETURN(const int64_t ratio, config.Int({"expansion_ratio"}, 1, 1024, 4));
  if (ratio * spec.width > kMaxSize) return InvalidData("{}: expansion_ratio {} is too large", config.what(), ratio);
  layer.ffn.width = static_cast<int32_t>(ratio * spec.width);
  layer.ffn.activation = Activation::kGelu;
  layer.ffn.gated = false;
  layer.attention.qkv_bias = layer.attention.out_bias = layer.ffn.up_bias = layer.ffn.down_bias = !no_bias;
  ASSIGN_OR_RETURN(const int64_t layers, ReadLayerCount(config, {"n_layers", "num_hidden_layers"}));
  spec.layers = Repeat(layer, layers);
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules;
  const std::string prefix = FindPrefix(source, {"transformer.", ""}, "wte.weight");
  rules.embedding = WeightRule(prefix + "wte.weight");
  rules.positions = WeightRule(prefix + "wpe.weight");
  rules.final_norm = NormNamed(prefix + "norm_f");
  rules.head = LinearNamed("lm_head");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string at = fmt::format("{}blocks.{}.", prefix, i);
    LayerRule layer;
    layer.attn_norm = NormNamed(at + "norm_1");
    layer.ffn_norm = NormNamed(at + "norm_2");
    SplitContiguousQkv(at + "attn.Wqkv", spec.layers[i].attention, false, layer);
    layer.out = LinearNamed(at + "attn.out_proj");
    layer.ffn.up = LinearNamed(at + "ffn.up_proj");
    layer.ffn.down = LinearNamed(at + "ffn.down_proj");
    rules.layers.push_back(std::move(layer));
  }
  if (spec.head.tied) rules.ignored_suffixes.push_back("lm_head.weight");
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "mpt";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "mpt", spec));
  RETURN_IF_ERROR(
      ReadGgufLayer(file, "mpt", {.layer_norm = true, .gated = false, .activation = Activation::kGelu}, spec, layer));
  ASSIGN_OR_RETURN(const double clip, file.Number("mpt.attention.clamp_kqv", 0.0));
  layer.attention.qkv_clip = static_cast<float>(clip);
  ASSIGN_OR_RETURN(const double max_bias, file.Number("mpt.attention.max_alibi_bias", 0.0));
  if (max_bias > 0.0) {
    spec.position = AlibiPosition{.slopes = AlibiSlopes(layer.attention.n_heads, max_bias)};
  } else if (file.Find("position_embd.weight")) {
    spec.position = LearnedPosition{.rows = spec.context};
  }
  RETURN_IF_ERROR(FinishGguf(file, "mpt", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, false); }

}  // namespace

ModelFamily Mpt() {
  return {.name = "mpt",
          .model_types = {"mpt"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"mpt"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
