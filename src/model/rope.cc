#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace kvasir {
namespace {

/// theta^(-2i/dim) for i in [0, dim/2).
std::vector<double> PlainFrequencies(double theta, int64_t dim) {
  std::vector<double> inverse(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < inverse.size(); ++i) {
    inverse[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
  }
  return inverse;
}

void ScaleLlama3(const RopeScaling& scaling, std::vector<double>& inverse) {
  const double context = static_cast<double>(scaling.original_context);
  const double low_wavelength = context / scaling.low_freq_factor;
  const double high_wavelength = context / scaling.high_freq_factor;
  for (double& f : inverse) {
    const double wavelength = 2.0 * std::numbers::pi / f;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      f /= scaling.factor;
      continue;
    }
    const double smooth =
        (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    f = (1.0 - smooth) * f / scaling.factor + smooth * f;
  }
}

/// Frequencies turning more than beta_fast times over the trained length stay, those under beta_slow times are
/// interpolated, with a ramp between.
void ScaleYarn(const RopePosition& rope, int64_t context, std::vector<double>& inverse) {
  const RopeScaling& scaling = rope.scaling;
  const double length = static_cast<double>(scaling.original_context > 0 ? scaling.original_context : context);
  const double dim = rope.dim;
  const auto dimension_of = [&](double rotations) {
    return dim * std::log(length / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(rope.theta));
  };
  const double low = std::max(std::floor(dimension_of(scaling.beta_fast)), 0.0);
  double high = std::min(std::ceil(dimension_of(scaling.beta_slow)), dim - 1.0);
  if (high == low) high += 0.001;  // no division by zero
  for (size_t i = 0; i < inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] = inverse[i] / scaling.factor * ramp + inverse[i] * (1.0 - ramp);
  }
}

double YarnAttentionFactor(const RopeScaling& scaling) {
  const auto mscale = [&](double m) { return scaling.factor <= 1.0 ? 1.0 : 0.1 * m * std::log(scaling.factor) + 1.0; };
  if (scaling.mscale != 0.0 && scaling.mscale_all_dim != 0.0) {
    return mscale(scaling.mscale) / mscale(scaling.mscale_all_dim);
  }
  return mscale(1.0);
}

double LongRopeAttentionFactor(const RopeScaling& scaling, int64_t context) {
  const double original = static_cast<double>(scaling.original_context);
  const double factor = scaling.original_context > 0 ? static_cast<double>(context) / original : scaling.factor;
  if (factor <= 1.0) return 1.0;
  return std::sqrt(1.0 + std::log(factor) / std::log(original));
}

}  // namespace

RopeFrequencies ComputeRopeFrequencies(const RopePosition& rope, int64_t context, int64_t length) {
  const RopeScaling& scaling = rope.scaling;
  std::vector<double> inverse = PlainFrequencies(rope.theta, rope.dim);
  double attention_factor = 1.0;
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone: break;
    case RopeScaling::Kind::kLinear:
      for (double& f : inverse) f /= scaling.factor;
      break;
    case RopeScaling::Kind::kDynamicNtk: {
      const double trained = static_cast<double>(context);
      const double reached = static_cast<double>(std::max(length, context));
      const double stretch = scaling.factor * reached / trained - (scaling.factor - 1.0);
      const double dim = rope.dim;
      inverse = PlainFrequencies(rope.theta * std::pow(stretch, dim / (dim - 2.0)), rope.dim);
      break;
    }
    case RopeScaling::Kind::kYarn:
      ScaleYarn(rope, context, inverse);
      attention_factor = YarnAttentionFactor(scaling);
      break;
    case RopeScaling::Kind::kLlama3: ScaleLlama3(scaling, inverse); break;
    case RopeScaling::Kind::kLongRope: {
      const bool is_long = scaling.original_context > 0 && length > scaling.original_context;
      const std::vector<double>& factors = is_long ? scaling.long_factor : scaling.short_factor;
      for (size_t i = 0; i < inverse.size(); ++i) inverse[i] /= factors[i];
      attention_factor = LongRopeAttentionFactor(scaling, context);
      break;
    }
  }
  for (size_t i = 0; i < scaling.frequency_divisors.size(); ++i) inverse[i] /= scaling.frequency_divisors[i];
  RopeFrequencies result;
  result.inverse.assign(inverse.begin(), inverse.end());  // narrows to fp32
  result.attention_factor = static_cast<float>(scaling.attention_factor.value_or(attention_factor));
  return result;
}

void FillCosSin(const RopeFrequencies& frequencies, int64_t position, float* out) {
  const size_t n = frequencies.inverse.size();
  for (size_t i = 0; i < n; ++i) {
    // The angle is rounded to fp32, as models were trained with it.
    const float angle = static_cast<float>(position) * frequencies.inverse[i];
    out[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * frequencies.attention_factor;
    out[n + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * frequencies.attention_factor;
  }
}

}  // namespace kvasir
