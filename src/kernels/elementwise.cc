// The row-wise and element-wise ops of ops.h: they cut the work up for the threads; kernel sets do the rest.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "kernels/kernel_set.h"
#include "kernels/ops.h"
#include "kernels/parallel.h"

namespace kvasir {
namespace {

// Elements that one thread handles before waking the others pays.
constexpr int64_t kSerialElements = 16 << 10;
// Longer rows are cut into pieces of this many elements where elements are independent.
constexpr int64_t kPieceElements = 8 << 10;

/// fn(row) for every row.
template <class Fn>
void ForRows(ExecContext& ctx, int64_t rows, int64_t cols, const Fn& fn) {
  if (rows * cols <= kSerialElements) {
    for (int64_t r = 0; r < rows; ++r) fn(r);
  } else {
    ForItems(*ctx.pool, rows, [&](int64_t r, int) { fn(r); });
  }
}

/// fn(row, first column, columns) for all of a matrix of independent elements.
template <class Fn>
void ForPieces(ExecContext& ctx, int64_t rows, int64_t cols, const Fn& fn) {
  if (rows <= 0 || cols <= 0) return;
  const int64_t pieces = CeilDiv(cols, kPieceElements);
  ForRows(ctx, rows * pieces, std::min(cols, kPieceElements), [&](int64_t i) {
    const int64_t begin = i % pieces * kPieceElements;
    fn(i / pieces, begin, std::min(kPieceElements, cols - begin));
  });
}

}  // namespace

float ApplyActivation(Activation activation, float x) noexcept {
  // In double, so that this is the function itself but for one rounding.
  const double v = static_cast<double>(x);
  const auto times_sigmoid = [v](double z) { return static_cast<float>(v / (1.0 + std::exp(-z))); };
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return x < 0.0f ? 0.0f : x;
    case Activation::kGelu: return static_cast<float>(0.5 * v * std::erfc(-v * 0.70710678118654752));
    // (1 + tanh z) / 2 is the sigmoid of 2z; z = √(2/π) (x + 0.044715 x³).
    case Activation::kGeluTanh: return times_sigmoid(1.5957691216057308 * (v + 0.044715 * v * v * v));
    case Activation::kGeluQuick: return times_sigmoid(1.702 * v);
    case Activation::kSilu: return times_sigmoid(v);
    case Activation::kReluSquared: return x < 0.0f ? 0.0f : x * x;
  }
  return x;
}

void Normalize(ExecContext& ctx, MatView<const float> x, const NormArgs& args, MatView<float> y) {
  KVASIR_CHECK(x.rows == y.rows && x.cols == y.cols);
  ForRows(ctx, x.rows, x.cols, [&](int64_t t) { ctx.kernels->rows->normalize(x.row(t), x.cols, args, y.row(t)); });
}

void RotateHeads(ExecContext& ctx, MatView<float> x, int64_t head_dim, MatView<const float> cos_sin, bool interleaved) {
  const int64_t n_freq = cos_sin.cols / 2;
  KVASIR_CHECK(head_dim > 0 && x.cols % head_dim == 0 && cos_sin.rows == x.rows && cos_sin.cols % 2 == 0);
  KVASIR_CHECK(2 * n_freq <= head_dim);
  ForRows(ctx, x.rows, x.cols, [&](int64_t t) {
    ctx.kernels->rows->rotate(x.row(t), x.cols / head_dim, head_dim, cos_sin.row(t), n_freq, interleaved);
  });
}

void NormalizeHeads(ExecContext& ctx, MatView<float> x, int64_t head_dim, const NormArgs& args, bool weight_per_head) {
  KVASIR_CHECK(head_dim > 0 && x.cols % head_dim == 0);
  ForRows(ctx, x.rows, x.cols, [&](int64_t t) {
    NormArgs head_args = args;
    for (int64_t begin = 0; begin < x.cols; begin += head_dim) {
      if (weight_per_head && args.weight != nullptr) head_args.weight = args.weight + begin;
      if (weight_per_head && args.bias != nullptr) head_args.bias = args.bias + begin;
      ctx.kernels->rows->normalize(x.row(t) + begin, head_dim, head_args, x.row(t) + begin);
    }
  });
}

void AddInPlace(ExecContext& ctx, MatView<const float> x, float scale, MatView<float> y) {
  KVASIR_CHECK(x.rows == y.rows && x.cols == y.cols);
  ForPieces(ctx, x.rows, x.cols, [&](int64_t row, int64_t begin, int64_t n) {
    ctx.kernels->rows->add(x.row(row) + begin, n, scale, y.row(row) + begin);
  });
}

void ActivateInPlace(ExecContext& ctx, MatView<float> x, Activation activation) {
  ForPieces(ctx, x.rows, x.cols, [&](int64_t row, int64_t begin, int64_t n) {
    ctx.kernels->rows->activate(x.row(row) + begin, n, activation);
  });
}

void ClampInPlace(ExecContext& ctx, MatView<float> x, float limit) {
  ForPieces(ctx, x.rows, x.cols,
            [&](int64_t row, int64_t begin, int64_t n) { ctx.kernels->rows->clamp(x.row(row) + begin, n, limit); });
}

void SoftcapInPlace(ExecContext& ctx, MatView<float> x, float cap) {
  ForPieces(ctx, x.rows, x.cols,
            [&](int64_t row, int64_t begin, int64_t n) { ctx.kernels->rows->softcap(x.row(row) + begin, n, cap); });
}

void ScaleInPlace(ExecContext& ctx, MatView<float> x, float factor) {
  ForPieces(ctx, x.rows, x.cols,
            [&](int64_t row, int64_t begin, int64_t n) { ctx.kernels->rows->scale(x.row(row) + begin, n, factor); });
}

void GatherRows(ExecContext& ctx, const PackedWeight& w, std::span<const int32_t> ids, float scale, MatView<float> y) {
  KVASIR_CHECK(static_cast<int64_t>(ids.size()) == y.rows && y.cols == w.cols);
  for (const int32_t id : ids) KVASIR_CHECK(id >= 0 && id < w.rows);
  ForRows(ctx, y.rows, y.cols, [&](int64_t t) {
    UnpackRow(w, ids[static_cast<size_t>(t)], y.row(t));
    if (scale != 1.0f) ctx.kernels->rows->scale(y.row(t), y.cols, scale);
  });
  ctx.counters.weight_bytes += y.rows * w.row_bytes();
}

}  // namespace kvasir
