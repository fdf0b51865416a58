// Baichuan 1 and 2, 7B and 13B: LLaMA's shape with Q, K and V in one W_pack. 7B rotates, 13B has ALiBi; Baichuan 2's
// head has rows of unit length (NormHead). Yang 2023, arXiv:2309.10305.
#include "model/families/llama_shape.h"

namespace kvasir::families {
namespace {

constexpr int32_t kVocabulary2 = 125'696;  // of Baichuan 2
constexpr int64_t kLayers13B = 40;

/// The files name neither the position nor the generation; these are the differences between the published ones. A
/// config may say it outright by "position_embedding" ("rope" or "alibi") and "normalize_head".
Result<bool> HasAlibi(const JsonReader& config) {
  // 13B's class has model_max_length only, 7B's max_position_embeddings too.
  const char* fallback = config.Has({"max_position_embeddings"}) ? "rope" : "alibi";
  ASSIGN_OR_RETURN(const std::string position, config.String({"position_embedding"}, fallback));
  if (position == "alibi" || position == "ALIBI") return true;
  if (position == "rope" || position == "ROPE") return false;
  return Unsupported("{}: position_embedding \"{}\"; known are rope, alibi", config.what(), position);
}

Result<DecoderSpec> Parse(const JsonReader& config) {
  DecoderSpec spec;
  spec.family = "baichuan";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadLlamaShape(config, {.context = 4096}, spec, layer));
  ASSIGN_OR_RETURN(spec.context,
                   config.Int({"max_position_embeddings", "model_max_length"}, 1, kMaxLength, spec.context));
  ASSIGN_OR_RETURN(const bool alibi, HasAlibi(config));
  if (alibi) spec.position = AlibiPosition{.slopes = AlibiSlopes(layer.attention.n_heads)};
  const bool second = spec.vocab_size == kVocabulary2 || config.Has({"z_loss_weight"});
  ASSIGN_OR_RETURN(spec.head.normalized, config.Bool({"normalize_head"}, second));
  RETURN_IF_ERROR(FillLayers(config, layer, spec));
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

Result<WeightRules> Rules(const DecoderSpec& spec, const TensorSource& source) {
  WeightRules rules = LlamaShapeRules(spec, source);
  const std::string prefix = LlamaShapePrefix(source);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    SplitContiguousQkv(fmt::format("{}layers.{}.self_attn.W_pack", prefix, i), spec.layers[i].attention, false,
                       rules.layers[i]);
  }
  return rules;
}

Result<DecoderSpec> ParseGguf(const GgufFile& file) {
  DecoderSpec spec;
  spec.family = "baichuan";
  LayerSpec layer;
  RETURN_IF_ERROR(ReadGgufCommon(file, "baichuan", spec));
  RETURN_IF_ERROR(ReadGgufLayer(file, "baichuan", {}, spec, layer));
  ASSIGN_OR_RETURN(const int64_t layers, file.Int("baichuan.block_count", 1, kMaxLayers));
  ASSIGN_OR_RETURN(const double max_bias,
                   file.Number("baichuan.attention.max_alibi_bias", layers == kLayers13B ? 8.0 : 0.0));
  if (max_bias > 0.0) {
    spec.position = AlibiPosition{.slopes = AlibiSlopes(layer.attention.n_heads, max_bias)};
  } else {
    ASSIGN_OR_RETURN(spec.position, ReadGgufRope(file, "baichuan", layer.attention.head_dim, false));
  }
  // Harmless where the rows were normalised before conversion.
  spec.head.normalized = spec.vocab_size == kVocabulary2;
  RETURN_IF_ERROR(FinishGguf(file, "baichuan", layer, spec));
  return spec;
}

Result<WeightRules> RulesGguf(const DecoderSpec& spec, const GgufFile& file) { return GgufRules(spec, file, true); }

}  // namespace

ModelFamily Baichuan() {
  return {.name = "baichuan",
          .model_types = {"baichuan"},
          .parse = Parse,
          .rules = Rules,
          .gguf_architectures = {"baichuan"},
          .parse_gguf = ParseGguf,
          .rules_gguf = RulesGguf};
}

}  // namespace kvasir::families
