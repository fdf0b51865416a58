#include "model/rope_override.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "io/json.h"
#include "model/families/common.h"

namespace kvasir {
namespace {

using Kind = RopeScaling::Kind;

/// What the flag says, as config.json would.
Result<json::object> ScalingObject(const RopeOverride& rope) {
  constexpr std::string_view kFlag = "--rope-scaling";
  json::object object;
  std::string_view text = rope.scaling;
  if (text.starts_with('{')) {
    ASSIGN_OR_RETURN(json::value value, ParseJson(text, kFlag, {.max_bytes = 1 << 20, .max_depth = 8}));
    object = std::move(value.as_object());
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    object["rope_type"] = text.empty() ? "linear" : text.substr(0, colon);
    if (colon < text.size()) {
      const std::string_view digits = text.substr(colon + 1);
      double factor = 0;
      const auto [end, error] = std::from_chars(digits.begin(), digits.end(), factor);
      if (error != std::errc() || end != digits.end() || !std::isfinite(factor)) {
        return InvalidArgument("{} \"{}\": \"{}\" is no number; write yarn:4", kFlag, text, digits);
      }
      object["factor"] = factor;
    }
  }
  if (rope.factor) {
    if (object.contains("factor")) return InvalidArgument("--rope-scale and {} both give a factor", kFlag);
    object["factor"] = *rope.factor;
  }
  if (rope.original_context) object["original_max_position_embeddings"] = *rope.original_context;
  return object;
}

}  // namespace

Status ApplyRopeOverride(const RopeOverride& rope, DecoderSpec& spec) {
  if (!rope.IsSet()) return OkStatus();
  auto* const own = std::get_if<RopePosition>(&spec.position);
  if (own == nullptr) {
    return InvalidArgument("the model has no rotary positions, so there is nothing for --rope-scaling{} to change{}",
                           rope.theta ? " or --rope-theta" : "",
                           std::holds_alternative<AlibiPosition>(spec.position)
                               ? "; its linear biases (ALiBi) go beyond the trained length as they are"
                               : "");
  }
  const int64_t trained = own->scaling.original_context > 0 ? own->scaling.original_context : spec.context;
  if (rope.theta) own->theta = *rope.theta;
  if (rope.scaling.empty() && !rope.factor && rope.original_context) {
    if (own->scaling.kind == Kind::kNone) {
      return InvalidArgument("--yarn-orig-ctx {}: the model's rotation is not scaled; give --rope-scaling too",
                             *rope.original_context);
    }
    own->scaling.original_context = *rope.original_context;
  } else if (!rope.scaling.empty() || rope.factor) {
    ASSIGN_OR_RETURN(const json::object object, ScalingObject(rope));
    const JsonReader fields(object, "--rope-scaling");
    const int64_t original = rope.original_context.value_or(trained);
    ASSIGN_OR_RETURN(own->theta, fields.Number({"rope_theta"}, own->theta));
    ASSIGN_OR_RETURN(own->scaling, families::ReadScaling(fields, original));
    const RopeScaling& scaling = own->scaling;
    if (scaling.kind == Kind::kNone && rope.factor) {
      return InvalidArgument("--rope-scale {} with --rope-scaling {}, which has no factor", *rope.factor, rope.scaling);
    }
    if (scaling.original_context > 0) spec.context = scaling.original_context;
    if (scaling.kind == Kind::kNone && original > 0) spec.context = original;
    const bool reaches_further = scaling.kind != Kind::kNone && scaling.kind != Kind::kDynamicNtk;
    // Validate refuses factors out of range.
    if (reaches_further && scaling.factor >= 1.0 && scaling.factor <= kMaxRopeFactor) {
      spec.context = std::llround(scaling.factor * static_cast<double>(spec.context));
    }
  }
  const Status status = spec.Validate();
  return status.ok() ? status : InvalidArgument("--rope-scaling, --rope-theta: {}", status.message());
}

std::string RopeIdentity(const DecoderSpec& spec) {
  const auto* const rope = std::get_if<RopePosition>(&spec.position);
  if (rope == nullptr) return {};
  const RopeScaling& s = rope->scaling;
  std::string text = fmt::format("theta {} of {}", rope->theta, spec.context);
  if (s.kind != Kind::kNone) {
    text += fmt::format(", scaling {} by {} from {} ({} {} {} {} {} {} {})", static_cast<int>(s.kind), s.factor,
                        s.original_context, s.low_freq_factor, s.high_freq_factor, s.beta_fast, s.beta_slow, s.mscale,
                        s.mscale_all_dim, s.attention_factor.value_or(0));
  }
  // Long lists as a sum of their own, which two different ones will hardly share.
  for (const std::vector<double>* list : {&s.short_factor, &s.long_factor, &s.frequency_divisors}) {
    double sum = 0;
    for (size_t i = 0; i < list->size(); ++i) sum += (*list)[i] * static_cast<double>(i + 1);
    if (!list->empty()) text += fmt::format(", {} factors {}", list->size(), sum);
  }
  return text;
}

}  // namespace kvasir
