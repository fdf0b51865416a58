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

Status InputMoments::Watch(std::span<const LayerMatrix* const> matrices) {
  moments_.clear();
  status_ = OkStatus();
  for (const LayerMatrix* matrix : matrices) {
    Moments moments{.matrix = matrix};
    ASSIGN_OR_RETURN(moments.sum, Buffer::Allocate(matrix->cols * matrix->cols * 4, MemoryOwner::kOther));
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
  return OkStatus();
}

}  // namespace kvasir::apps
