#include "model/decoder_spec.h"

#include <cmath>
#include <utility>

namespace kvasir {
namespace {

// Bounds far above any published model; they keep products of sizes well inside int64.
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxVocab = 1 << 26;
constexpr int64_t kMaxLayers = 10'000;
constexpr int64_t kMaxContext = int64_t{1} << 40;
// Beyond these, numbers in the forward pass stop being finite.
constexpr float kMaxAttentionScale = 1e4f;
constexpr float kMaxScale = 1e6f;

Status CheckRange(std::string_view what, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return OkStatus();
  return InvalidData("the config gives {} = {}; it must be between {} and {}", what, value, min, max);
}

Status CheckNorm(const std::optional<NormSpec>& norm, std::string_view what) {
  if (!norm || (std::isfinite(norm->eps) && norm->eps >= 0.0f && norm->eps < 1.0f)) return OkStatus();
  return InvalidData("the config gives an epsilon of {} for {}; it must be at least 0 and below 1", norm->eps, what);
}

Status CheckAttention(const AttentionSpec& a) {
  RETURN_IF_ERROR(CheckRange("attention heads", a.n_heads, 1, 65'536));
  RETURN_IF_ERROR(CheckRange("key-value heads", a.n_kv_heads, 1, a.n_heads));
  RETURN_IF_ERROR(CheckRange("head size", a.head_dim, 1, 512));
  if (a.n_heads % a.n_kv_heads != 0) {
    return InvalidData("the config gives {} attention heads, which {} key-value heads do not divide", a.n_heads,
                       a.n_kv_heads);
  }
  if (!(a.scale > 0.0f && a.scale <= kMaxAttentionScale)) {
    return InvalidData("the config gives an attention scale of {}; it must be above 0 and at most {}", a.scale,
                       kMaxAttentionScale);
  }
  if (!std::isfinite(a.softcap) || a.softcap < 0.0f) {
    return InvalidData("the config gives an attention softcap of {}; it must be 0 or more", a.softcap);
  }
  if (!std::isfinite(a.qkv_clip) || a.qkv_clip < 0.0f) {
    return InvalidData("the config gives a QKV clip of {}; it must be 0 or more", a.qkv_clip);
  }
  RETURN_IF_ERROR(CheckRange("attention window", a.window, 0, kMaxContext));
  return CheckRange("attention width", int64_t{a.n_heads} * a.head_dim, 1, kMaxWidth);
}

Status CheckFfn(const FfnSpec& f) {
  RETURN_IF_ERROR(CheckRange("FFN width", f.width, 1, kMaxWidth * 4));
  RETURN_IF_ERROR(CheckRange("experts", f.moe.n_experts, 0, 4096));
  if (f.moe.n_experts > 0) RETURN_IF_ERROR(CheckRange("experts per token", f.moe.top_k, 1, f.moe.n_experts));
  return OkStatus();
}

Status CheckScaling(const RopeScaling& scaling, int64_t frequencies) {
  using Kind = RopeScaling::Kind;
  const bool longrope = scaling.kind == Kind::kLongRope;
  // LongRoPE has lists instead, and no scaling has nothing to scale.
  const bool uses_factor = scaling.kind != Kind::kNone && !longrope;
  if (uses_factor && !(scaling.factor >= 1.0 && scaling.factor <= kMaxRopeFactor)) {
    return InvalidData("the config gives a RoPE scaling factor of {}; it must be from 1 to {}", scaling.factor,
                       kMaxRopeFactor);
  }
  if (scaling.attention_factor && !(*scaling.attention_factor > 0.0 && *scaling.attention_factor <= 1e4)) {
    return InvalidData("the config gives a RoPE attention_factor of {}; it must be above 0 and at most 10000",
                       *scaling.attention_factor);
  }
  if (scaling.kind == Kind::kDynamicNtk && frequencies < 2) {
    return InvalidData("dynamic RoPE scaling needs at least 4 rotary dimensions");
  }
  if (longrope && scaling.original_context == 1) {
    return InvalidData("the config gives a RoPE original_max_position_embeddings of 1; it must be at least 2");
  }
  const auto check_list = [&](const std::vector<double>& list, std::string_view what, bool required) -> Status {
    if (list.empty() && !required) return OkStatus();
    if (static_cast<int64_t>(list.size()) != frequencies) {
      return InvalidData("the config gives {} values for RoPE's {}; there are {} frequencies", list.size(), what,
                         frequencies);
    }
    for (double value : list) {
      if (!std::isfinite(value) || value <= 0.0) {
        return InvalidData("the config gives {} in RoPE's {}; values must be above 0", value, what);
      }
    }
    return OkStatus();
  };
  RETURN_IF_ERROR(check_list(scaling.short_factor, "short_factor", longrope));
  RETURN_IF_ERROR(check_list(scaling.long_factor, "long_factor", longrope));
  RETURN_IF_ERROR(check_list(scaling.frequency_divisors, "frequency divisors", false));
  if (scaling.kind == Kind::kLlama3 &&
      !(scaling.low_freq_factor > 0.0 && scaling.high_freq_factor > scaling.low_freq_factor)) {
    return InvalidData(
        "the config gives RoPE high_freq_factor {} and low_freq_factor {}; the second must be above 0, the first "
        "larger",
        scaling.high_freq_factor, scaling.low_freq_factor);
  }
  return OkStatus();
}

Status CheckPosition(const DecoderSpec& spec) {
  if (const auto* learned = std::get_if<LearnedPosition>(&spec.position)) {
    RETURN_IF_ERROR(CheckRange("learned positions", learned->rows, 1, kMaxVocab));
    return CheckRange("position offset", learned->offset, 0, learned->rows - 1);
  }
  if (std::holds_alternative<SinusoidalPosition>(spec.position) && spec.width < 4) {
    return InvalidData("sinusoidal positions need a width of at least 4");
  }
  if (const auto* rope = std::get_if<RopePosition>(&spec.position)) {
    // At 1 all frequencies are equal, below it they grow.
    if (!std::isfinite(rope->theta) || rope->theta <= 1.0) {
      return InvalidData("the config gives a RoPE theta of {}; it must be above 1", rope->theta);
    }
    for (const LayerSpec& layer : spec.layers) {
      if (rope->dim >= 2 && rope->dim <= layer.attention.head_dim) continue;
      return InvalidData(
          "the config gives {} rotary dimensions for heads of {}; there must be 2 or more, and no more "
          "than a head has",
          rope->dim, layer.attention.head_dim);
    }
    if (rope->dim % 2 != 0) return InvalidData("the config gives {} rotary dimensions; they must be even", rope->dim);
    return CheckScaling(rope->scaling, rope->dim / 2);
  }
  if (const auto* alibi = std::get_if<AlibiPosition>(&spec.position)) {
    for (const LayerSpec& layer : spec.layers) {
      if (static_cast<int64_t>(alibi->slopes.size()) != layer.attention.n_heads) {
        return InvalidData("there are {} ALiBi slopes for {} heads", alibi->slopes.size(), layer.attention.n_heads);
      }
    }
    for (const float slope : alibi->slopes) {
      if (slope > 0.0f && slope <= 1.0f) continue;
      return InvalidData("the config's largest ALiBi bias gives a slope of {}; slopes must be above 0 and at most 1",
                         slope);
    }
  }
  return OkStatus();
}

int64_t NormParameters(const std::optional<NormSpec>& norm, int64_t width) {
  return norm ? width * (int64_t{norm->has_weight} + int64_t{norm->has_bias}) : 0;
}

int64_t LayerParameters(const LayerSpec& layer, int64_t width) {
  const AttentionSpec& a = layer.attention;
  const int64_t q = int64_t{a.n_heads} * a.head_dim;
  const int64_t kv = int64_t{a.n_kv_heads} * a.head_dim;
  int64_t total = width * (q + 2 * kv) + (a.qkv_bias ? q + 2 * kv : 0) + q * width + (a.out_bias ? width : 0);
  if (a.qk_norm == QkNorm::kPerHead) total += 2 * NormParameters(a.qk_norm_spec, a.head_dim);
  if (a.qk_norm == QkNorm::kFullWidth) total += NormParameters(a.qk_norm_spec, q + kv);
  const FfnSpec& f = layer.ffn;
  const int64_t ups = f.gated ? 2 : 1;
  const int64_t ffn =
      ups * width * f.width + (f.up_bias ? ups * f.width : 0) + f.width * width + (f.down_bias ? width : 0);
  total += f.moe.n_experts > 0 ? f.moe.n_experts * (ffn + width) : ffn;
  for (const auto* norm : {&layer.attn_norm, &layer.attn_branch_norm, &layer.attn_residual_norm, &layer.ffn_norm,
                           &layer.ffn_branch_norm, &layer.ffn_residual_norm}) {
    total += NormParameters(*norm, width);
  }
  return total;
}

}  // namespace

std::vector<float> AlibiSlopes(int32_t n_heads, double max_bias) {
  std::vector<float> slopes;
  int32_t power = 1;
  while (power * 2 <= n_heads) power *= 2;
  for (int32_t i = 1; i <= power; ++i) {
    slopes.push_back(static_cast<float>(std::exp2(-max_bias * i / power)));
  }
  for (int32_t i = 1; static_cast<int32_t>(slopes.size()) < n_heads; i += 2) {
    slopes.push_back(static_cast<float>(std::exp2(-max_bias * i / (2 * power))));
  }
  return slopes;
}

Status DecoderSpec::Validate() const {
  RETURN_IF_ERROR(CheckRange("vocabulary size", vocab_size, 1, kMaxVocab));
  RETURN_IF_ERROR(CheckRange("hidden size", width, 1, kMaxWidth));
  RETURN_IF_ERROR(CheckRange("embedding size", embedding_width, 1, kMaxWidth));
  RETURN_IF_ERROR(CheckRange("layers", static_cast<int64_t>(layers.size()), 1, kMaxLayers));
  RETURN_IF_ERROR(CheckRange("context length", context, 0, kMaxContext));
  if (embedding_width != width && !(project_in && project_out)) {
    return InvalidData("the embedding size {} differs from the hidden size {} without projections", embedding_width,
                       width);
  }
  for (const auto& [what, scale] : {std::pair("an embedding scale", embedding_scale), {"a logit scale", head.scale}}) {
    if (scale > 0.0f && scale <= kMaxScale) continue;
    return InvalidData("the config gives {} of {}; it must be above 0 and at most {}", what, scale, kMaxScale);
  }
  if (!std::isfinite(head.softcap) || head.softcap < 0.0f) {
    return InvalidData("the config gives a logit softcap of {}; it must be 0 or more, and finite", head.softcap);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerSpec& layer = layers[i];
    const std::string where = fmt::format("layer {}", i);
    RETURN_IF_ERROR(CheckAttention(layer.attention).WithContext(where));
    RETURN_IF_ERROR(CheckFfn(layer.ffn).WithContext(where));
    for (const auto* norm : {&layer.attn_norm, &layer.attn_branch_norm, &layer.attn_residual_norm, &layer.ffn_norm,
                             &layer.ffn_branch_norm, &layer.ffn_residual_norm}) {
      RETURN_IF_ERROR(CheckNorm(*norm, "a norm").WithContext(where));
    }
    if (layer.parallel && (layer.attn_residual_norm || layer.ffn_residual_norm)) {
      return InvalidData("{}: a parallel layer cannot have norms after its residual additions", where);
    }
  }
  RETURN_IF_ERROR(CheckNorm(embedding_norm, "the embedding norm"));
  RETURN_IF_ERROR(CheckNorm(final_norm, "the final norm"));
  RETURN_IF_ERROR(CheckPosition(*this));
  const auto check_id = [&](int32_t id, std::string_view what) {
    return CheckRange(what, id, 0, int64_t{vocab_size} - 1);
  };
  if (bos_id) RETURN_IF_ERROR(check_id(*bos_id, "bos_token_id"));
  for (int32_t id : eos_ids) RETURN_IF_ERROR(check_id(id, "eos_token_id"));
  return OkStatus();
}

int64_t ParameterCount(const DecoderSpec& spec) {
  int64_t total = int64_t{spec.vocab_size} * spec.embedding_width;
  if (!spec.head.tied) total *= 2;
  if (spec.head.bias) total += spec.vocab_size;
  if (const auto* learned = std::get_if<LearnedPosition>(&spec.position)) total += learned->rows * spec.width;
  if (spec.project_in) total += int64_t{spec.embedding_width} * spec.width;
  if (spec.project_out) total += int64_t{spec.embedding_width} * spec.width;
  total += NormParameters(spec.embedding_norm, spec.width) + NormParameters(spec.final_norm, spec.width);
  for (const LayerSpec& layer : spec.layers) total += LayerParameters(layer, spec.width);
  return total;
}

}  // namespace kvasir
