#include "apps/spec_json.h"

#include <boost/json/array.hpp>

#include "apps/report.h"
#include "base/dtype.h"

namespace kvasir::apps {
namespace {

namespace json = boost::json;

std::string_view Name(Activation activation) {
  switch (activation) {
    case Activation::kNone: return "none";
    case Activation::kRelu: return "relu";
    case Activation::kGelu: return "gelu";
    case Activation::kGeluTanh: return "gelu_tanh";
    case Activation::kGeluQuick: return "gelu_quick";
    case Activation::kSilu: return "silu";
    case Activation::kReluSquared: return "relu_squared";
  }
  return "unknown";
}

std::string_view Name(QkNorm norm) {
  switch (norm) {
    case QkNorm::kNone: return "none";
    case QkNorm::kPerHead: return "per_head";
    case QkNorm::kFullWidth: return "full_width";
  }
  return "unknown";
}

std::string_view Name(RopeScaling::Kind kind) {
  switch (kind) {
    case RopeScaling::Kind::kNone: return "none";
    case RopeScaling::Kind::kLinear: return "linear";
    case RopeScaling::Kind::kDynamicNtk: return "dynamic";
    case RopeScaling::Kind::kYarn: return "yarn";
    case RopeScaling::Kind::kLlama3: return "llama3";
    case RopeScaling::Kind::kLongRope: return "longrope";
  }
  return "unknown";
}

json::object NormJson(const NormSpec& norm) {
  return {{"kind", norm.layer_norm ? "layer_norm" : "rms_norm"},
          {"eps", norm.eps},
          {"has_weight", norm.has_weight},
          {"has_bias", norm.has_bias},
          {"plus_one", norm.plus_one}};
}

json::value NormJson(const std::optional<NormSpec>& norm) {
  return norm ? json::value(NormJson(*norm)) : json::value(nullptr);
}

json::object ScalingJson(const RopeScaling& scaling) {
  json::object object{{"kind", Name(scaling.kind)}};
  if (scaling.kind != RopeScaling::Kind::kNone) {
    object["factor"] = scaling.factor;
    object["original_context"] = scaling.original_context;
  }
  if (scaling.kind == RopeScaling::Kind::kLlama3) {
    object["low_freq_factor"] = scaling.low_freq_factor;
    object["high_freq_factor"] = scaling.high_freq_factor;
  }
  if (scaling.kind == RopeScaling::Kind::kYarn) {
    object["beta_fast"] = scaling.beta_fast;
    object["beta_slow"] = scaling.beta_slow;
    object["mscale"] = scaling.mscale;
    object["mscale_all_dim"] = scaling.mscale_all_dim;
  }
  if (scaling.attention_factor) object["attention_factor"] = *scaling.attention_factor;
  auto list = [&](const char* name, const std::vector<double>& values) {
    if (!values.empty()) object[name] = json::array(values.begin(), values.end());
  };
  list("short_factor", scaling.short_factor);
  list("long_factor", scaling.long_factor);
  list("frequency_divisors", scaling.frequency_divisors);
  return object;
}

struct PositionJson {
  json::object operator()(const NoPosition&) const { return {{"kind", "none"}}; }
  json::object operator()(const LearnedPosition& p) const {
    return {{"kind", "learned"}, {"rows", p.rows}, {"offset", p.offset}};
  }
  json::object operator()(const SinusoidalPosition& p) const { return {{"kind", "sinusoidal"}, {"offset", p.offset}}; }
  json::object operator()(const RopePosition& p) const {
    return {{"kind", "rope"},
            {"theta", p.theta},
            {"dim", p.dim},
            {"interleaved", p.interleaved},
            {"scaling", ScalingJson(p.scaling)}};
  }
  json::object operator()(const AlibiPosition& p) const {
    return {{"kind", "alibi"},
            {"slopes", json::array(p.slopes.begin(), p.slopes.end())},
            {"bf16_rounding", p.bf16_rounding},
            {"scale", p.scale}};
  }
};

json::object LayerJson(const LayerSpec& layer) {
  const AttentionSpec& a = layer.attention;
  const FfnSpec& f = layer.ffn;
  json::object attention{{"n_heads", a.n_heads},      {"n_kv_heads", a.n_kv_heads}, {"head_dim", a.head_dim},
                         {"qkv_bias", a.qkv_bias},    {"out_bias", a.out_bias},     {"scale", a.scale},
                         {"softcap", a.softcap},      {"window", a.window},         {"qkv_clip", a.qkv_clip},
                         {"qk_norm", Name(a.qk_norm)}};
  if (a.qk_norm != QkNorm::kNone) attention["qk_norm_spec"] = NormJson(a.qk_norm_spec);
  json::object ffn{{"width", f.width},
                   {"activation", Name(f.activation)},
                   {"gated", f.gated},
                   {"up_bias", f.up_bias},
                   {"down_bias", f.down_bias}};
  if (f.moe.n_experts > 0) {
    ffn["moe"] =
        json::object{{"n_experts", f.moe.n_experts}, {"top_k", f.moe.top_k}, {"renormalize", f.moe.renormalize}};
  }
  return {{"attention", std::move(attention)},
          {"ffn", std::move(ffn)},
          {"parallel", layer.parallel},
          {"attn_norm", NormJson(layer.attn_norm)},
          {"attn_branch_norm", NormJson(layer.attn_branch_norm)},
          {"attn_residual_norm", NormJson(layer.attn_residual_norm)},
          {"ffn_norm", NormJson(layer.ffn_norm)},
          {"ffn_branch_norm", NormJson(layer.ffn_branch_norm)},
          {"ffn_residual_norm", NormJson(layer.ffn_residual_norm)}};
}

std::string AttentionText(const AttentionSpec& a) {
  std::string text = fmt::format("{} heads of {}", a.n_heads, a.head_dim);
  if (a.n_kv_heads == 1) {
    text += ", MQA";
  } else if (a.n_kv_heads != a.n_heads) {
    text += fmt::format(", GQA with {} KV heads", a.n_kv_heads);
  }
  if (a.window > 0) text += fmt::format(", window {}", a.window);
  if (a.softcap > 0) text += fmt::format(", softcap {}", a.softcap);
  if (a.qk_norm != QkNorm::kNone) text += ", qk-norm";
  if (a.qkv_bias) text += ", QKV bias";
  return text;
}

std::string LayerText(const LayerSpec& layer) {
  const FfnSpec& f = layer.ffn;
  std::string text = AttentionText(layer.attention) +
                     fmt::format("; {}FFN {} {}", f.gated ? "gated " : "", f.width, Name(f.activation));
  if (f.moe.n_experts > 0) text += fmt::format(", {} of {} experts", f.moe.top_k, f.moe.n_experts);
  if (layer.parallel) text += "; parallel";
  return text;
}

}  // namespace

json::object SpecJson(const DecoderSpec& spec) {
  json::array layers;
  for (const LayerSpec& layer : spec.layers) layers.push_back(LayerJson(layer));
  return {{"family", spec.family},
          {"architecture", spec.architecture},
          {"dtype", DTypeName(spec.dtype)},
          {"vocab_size", spec.vocab_size},
          {"width", spec.width},
          {"embedding_width", spec.embedding_width},
          {"context", spec.context},
          {"embedding_scale", spec.embedding_scale},
          {"position", std::visit(PositionJson(), spec.position)},
          {"embedding_norm", NormJson(spec.embedding_norm)},
          {"project_in", spec.project_in},
          {"project_out", spec.project_out},
          {"final_norm", NormJson(spec.final_norm)},
          {"head",
           {{"tied", spec.head.tied},
            {"bias", spec.head.bias},
            {"normalized", spec.head.normalized},
            {"scale", spec.head.scale},
            {"softcap", spec.head.softcap}}},
          {"bos_id", spec.bos_id ? json::value(*spec.bos_id) : json::value(nullptr)},
          {"eos_ids", json::array(spec.eos_ids.begin(), spec.eos_ids.end())},
          {"pad_id", spec.pad_id ? json::value(*spec.pad_id) : json::value(nullptr)},
          {"layers", std::move(layers)}};
}

std::string SpecText(const DecoderSpec& spec) {
  std::string text =
      fmt::format("architecture  {} ({}), {} layers, width {}, vocabulary {}, context {}, {}\n", spec.architecture,
                  spec.family, spec.layers.size(), spec.width, spec.vocab_size, spec.context, DTypeName(spec.dtype));
  json::object position = std::visit(PositionJson(), spec.position);
  position.erase("slopes");
  text += fmt::format("positions     {}\n", PlainJson(position));
  text += fmt::format("head          {}{}\n", spec.head.tied ? "tied to the embedding" : "its own matrix",
                      spec.head.bias ? ", with bias" : "");
  // Runs of equal layers.
  for (size_t i = 0; i < spec.layers.size();) {
    const std::string words = LayerText(spec.layers[i]);
    size_t end = i + 1;
    while (end < spec.layers.size() && LayerText(spec.layers[end]) == words) ++end;
    text +=
        fmt::format("layers {:<7}{}\n", end - i == 1 ? fmt::format("{}", i) : fmt::format("{}–{}", i, end - 1), words);
    i = end;
  }
  return text;
}

}  // namespace kvasir::apps
