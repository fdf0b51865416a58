#include "apps/input_moments.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "kernels/ops.h"

namespace kvasir::apps {

InputMoments::InputMoments(ThreadPool& pool, const KernelSet& kernels) {
  ctx_.pool = &pool;
  ctx_.scratch = &scratch_;
  ctx_.kernels = &kernels;
}

void InputKeeper::Watch(std::span<const LayerMatrix> matrices) {
  kept_.clear();
  for (const LayerMatrix& matrix : matrices) kept_.push_back({.matrix = &matrix});
}

void InputKeeper::OnMatMul(const PackedWeight& w, MatView<const float> x) {
  for (Kept& kept : kept_) {
    if (kept.matrix->data != w.data) continue;
    kept.rows = x.rows;
    kept.values.resize(static_cast<size_t>(x.rows * x.cols));
    for (int64_t t = 0; t < x.rows; ++t) std::copy_n(x.row(t), x.cols, kept.values.data() + t * x.cols);
  }
}

MatView<const float> InputKeeper::Find(const std::string& name) const {
  for (const Kept& kept : kept_) {
    if (kept.matrix->name == name) return {kept.values.data(), kept.rows, kept.matrix->cols};
  }
  return {};
}

Status InputMoments::Watch(std::span<const LayerMatrix* const> matrices, const InputKeeper* originals) {
  moments_.clear();
  originals_ = originals;
  status_ = OkStatus();
  for (const LayerMatrix* matrix : matrices) {
    Moments moments{.matrix = matrix};
    ASSIGN_OR_RETURN(moments.sum, Buffer::Allocate(matrix->cols * matrix->cols * 4, MemoryOwner::kOther));
    if (originals) {
      ASSIGN_OR_RETURN(moments.drift, Buffer::Allocate(matrix->cols * matrix->cols * 4, MemoryOwner::kOther));
    }
    moments_.push_back(std::move(moments));
  }
  return OkStatus();
}

void InputMoments::OnMatMul(const PackedWeight& w, MatView<const float> x) {
  if (!status_.ok()) return;
  for (Moments& moments : moments_) {
    if (moments.matrix->data != w.data) continue;
    status_ = Add(moments, x);
    return;
  }
}

Status InputMoments::Add(Moments& moments, MatView<const float> x) {
  const int64_t cols = moments.cols();
  const int64_t lines = RoundUp(x.rows, kWeightColAlign);
  const int64_t panels = CeilDiv(cols, kPanelRows);
  arena_.Reset();
  ASSIGN_OR_RETURN(float* packed, arena_.Allocate<float>(panels * lines * kPanelRows));
  ASSIGN_OR_RETURN(float* flipped, arena_.Allocate<float>(panels * kPanelRows * x.rows));
  // A product of transpose(x) with itself, each row of which is an input: as the matrix, packed (a line of a panel is
  // 16 neighbouring values of one token), and row by row.
  std::atomic<bool> finite{true};
  ctx_.pool->ParallelFor(panels, 4, [&](int64_t from, int64_t to, int) {
    for (int64_t p = from; p < to; ++p) {
      float* const panel = packed + p * lines * kPanelRows;
      float* const rows = flipped + p * kPanelRows * x.rows;
      const int64_t count = std::min(kPanelRows, cols - p * kPanelRows);
      std::memset(panel, 0, static_cast<size_t>(lines * kPanelRows) * sizeof(float));
      bool good = true;
      for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t i = 0; i < count; ++i) {
          const float value = x.row(t)[p * kPanelRows + i];
          good = good && std::isfinite(value);
          panel[t * kPanelRows + i] = value;
          rows[i * x.rows + t] = value;
        }
      }
      if (!good) finite.store(false, std::memory_order_relaxed);
    }
  });
  if (!finite) {
    return InvalidData("the inputs of {} are NaN or infinite on the calibration text; the weights are damaged",
                       moments.matrix->name);
  }
  const MatView<const float> inputs(flipped, cols, x.rows);
  const MatView<float> sum(moments.sum.as<float>(), cols, cols);
  constexpr int64_t kRows = 256;
  for (int64_t begin = 0; begin < cols; begin += kRows) {
    // Below the diagonal only: the other half is the same.
    const int64_t end = std::min(begin + kRows, cols);
    const PackedWeight w{
        .format = WeightFormat::kF32, .rows = end, .cols = x.rows, .data = reinterpret_cast<const std::byte*>(packed)};
    RETURN_IF_ERROR(MatMul(ctx_, inputs.Rows(begin, end - begin), w, {.accumulate = true},
                           sum.Rows(begin, end - begin).Cols(0, end)));
  }
  moments.tokens += x.rows;
  return originals_ ? AddDrift(moments, x, inputs, packed) : OkStatus();
}

Status InputMoments::AddDrift(Moments& moments, MatView<const float> x, MatView<const float> flipped, float* packed) {
  const MatView<const float> original = originals_->Find(moments.matrix->name);
  KVASIR_CHECK(original.rows == x.rows && original.cols == x.cols);
  const int64_t lines = RoundUp(x.rows, kWeightColAlign);
  ctx_.pool->ParallelFor(CeilDiv(x.cols, kPanelRows), 4, [&](int64_t from, int64_t to, int) {
    for (int64_t p = from; p < to; ++p) {
      const int64_t first = p * kPanelRows;
      for (int64_t t = 0; t < x.rows; ++t) {
        float* const line = packed + (p * lines + t) * kPanelRows;
        for (int64_t i = 0; i < std::min(kPanelRows, x.cols - first); ++i) {
          line[i] = original.row(t)[first + i] - x.row(t)[first + i];
        }
      }
    }
  });
  const PackedWeight w{
      .format = WeightFormat::kF32, .rows = x.cols, .cols = x.rows, .data = reinterpret_cast<const std::byte*>(packed)};
  return MatMul(ctx_, flipped, w, {.accumulate = true}, MatView<float>(moments.drift.as<float>(), x.cols, x.cols));
}

Status AimAtOriginals(const InputMoments::Moments& moments, const GptqFactor& factor, int64_t rows, float* weights,
                      ThreadPool& pool, const KernelSet& kernels) {
  const int64_t cols = moments.cols();
  PackedWeight drift{.format = WeightFormat::kF32, .rows = cols, .cols = cols};
  ASSIGN_OR_RETURN(Buffer packed, Buffer::Allocate(drift.bytes(), MemoryOwner::kOther));
  ASSIGN_OR_RETURN(Buffer change, Buffer::Allocate(rows * cols * 4, MemoryOwner::kOther));
  drift.data = packed.data();
  pool.ParallelFor(CeilDiv(cols, kPanelRows), 1, [&](int64_t from, int64_t to, int) {
    for (int64_t p = from; p < to; ++p) {
      PackSource sources[kPanelRows];
      const int64_t count = std::min(kPanelRows, cols - p * kPanelRows);
      for (int64_t i = 0; i < count; ++i) {
        sources[i].data = moments.drift.data() + (p * kPanelRows + i) * cols * 4;
      }
      PackPanel({sources, static_cast<size_t>(count)}, cols, WeightFormat::kF32,
                packed.data() + p * drift.panel_bytes());
    }
  });
  Arena scratch(MemoryOwner::kOther);
  ExecContext ctx{.pool = &pool, .scratch = &scratch, .kernels = &kernels};
  RETURN_IF_ERROR(MatMul(ctx, MatView<const float>(weights, rows, cols), drift, {},
                         MatView<float>(change.as<float>(), rows, cols)));
  factor.Solve(change.as<float>(), rows, pool);
  for (int64_t i = 0; i < rows * cols; ++i) weights[i] += change.as<float>()[i];
  return OkStatus();
}

}  // namespace kvasir::apps
