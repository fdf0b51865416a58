// Row-wise operations in plain code.
#include <cmath>

#include "kernels/kernel_set.h"
#include "kernels/ops.h"

namespace kvasir::ref {
namespace {

void Normalize(const float* x, int64_t n, const NormArgs& args, float* y) noexcept {
  if (n <= 0) return;
  double mean = 0.0;
  if (args.layer_norm) {
    for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(x[i]);
    mean /= static_cast<double>(n);
  }
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) squares += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
  const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(args.eps));
  for (int64_t i = 0; i < n; ++i) {
    float v = static_cast<float>((static_cast<double>(x[i]) - mean) * inverse);
    if (args.weight != nullptr) v *= args.plus_one ? args.weight[i] + 1.0f : args.weight[i];
    if (args.bias != nullptr) v += args.bias[i];
    y[i] = v;
  }
}

void Rotate(float* x, int64_t heads, int64_t head_dim, const float* cos_sin, int64_t n_freq,
            bool interleaved) noexcept {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < n_freq; ++i) {
      float& a = x[h * head_dim + (interleaved ? 2 * i : i)];
      float& b = x[h * head_dim + (interleaved ? 2 * i + 1 : i + n_freq)];
      const float old = a;
      a = old * cos_sin[i] - b * cos_sin[n_freq + i];
      b = b * cos_sin[i] + old * cos_sin[n_freq + i];
    }
  }
}

void Add(const float* x, int64_t n, float scale, float* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i] * scale;
}

void Activate(float* x, int64_t n, Activation activation) noexcept {
  for (int64_t i = 0; i < n; ++i) x[i] = ApplyActivation(activation, x[i]);
}

void Clamp(float* x, int64_t n, float limit) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    // NaN fails both comparisons and stays.
    if (x[i] > limit) x[i] = limit;
    if (x[i] < -limit) x[i] = -limit;
  }
}

void Softcap(float* x, int64_t n, float cap) noexcept {
  for (int64_t i = 0; i < n; ++i) x[i] = cap * std::tanh(x[i] / cap);
}

void Scale(float* x, int64_t n, float factor) noexcept {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

}  // namespace

constinit const RowKernels kRowKernels = {.normalize = &Normalize,
                                          .rotate = &Rotate,
                                          .add = &Add,
                                          .activate = &Activate,
                                          .clamp = &Clamp,
                                          .softcap = &Softcap,
                                          .scale = &Scale};

}  // namespace kvasir::ref
