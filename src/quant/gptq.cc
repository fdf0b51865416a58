#include "quant/gptq.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "base/checked.h"
#include "base/dtype.h"
#include "quant/gptq_grid.h"
#include "quant/gptq_tile.h"

namespace kvasir {
namespace {

constexpr int64_t kBlock = 128;     // columns after which the later ones learn of the errors
constexpr int64_t kChunkRows = 32;  // rows that a thread takes at once

int64_t GroupLength(const GptqOptions& options, int64_t cols) {
  return options.group_size < 0 ? cols : std::min(options.group_size, cols);
}

/// Where the block that begins at `begin` ends. A group lies inside one block or begins with one, so that its grid is
/// found from weights that know of all errors before them.
int64_t BlockEnd(int64_t begin, int64_t group, int64_t cols) {
  int64_t end = begin + (group < kBlock ? kBlock / group * group : kBlock);
  if (group > kBlock) end = std::min(end, (begin / group + 1) * group);
  return std::min(end, cols);
}

GptqMatrix EmptyMatrix(int64_t rows, int64_t cols, const GptqOptions& options) {
  GptqMatrix matrix{.bits = options.bits, .rows = rows, .cols = cols, .groups = options.groups(cols)};
  matrix.codes.resize(static_cast<size_t>(rows * cols));
  matrix.scales.resize(static_cast<size_t>(matrix.groups * rows));
  matrix.zeros.resize(static_cast<size_t>(matrix.groups * rows));
  matrix.group_of.resize(static_cast<size_t>(cols));
  return matrix;
}

void SetGrid(GptqMatrix& matrix, int64_t group, int64_t row, const GptqGrid& grid) {
  const auto at = static_cast<size_t>(group * matrix.rows + row);
  matrix.scales[at] = ToFloat16(grid.scale).bits;
  matrix.zeros[at] = static_cast<uint8_t>(grid.zero);
}

Status CheckMagnitudes(const float* weights, int64_t rows, int64_t cols, int bits, ThreadPool& pool) {
  std::atomic<bool> bad{false};
  pool.ParallelFor(rows, 16, [&](int64_t from, int64_t to, int) {
    float largest = 0.0f;
    for (int64_t i = from * cols; i < to * cols; ++i) largest = std::max(largest, std::abs(weights[i]));
    if (!GptqGridFits(largest, bits)) bad.store(true, std::memory_order_relaxed);
  });
  if (bad) return InvalidData("holds weights too large for scales in fp16 at {} bits", bits);
  return OkStatus();
}

/// Some rows of one matrix on one thread. Columns stand in the order of processing.
class Sweep {
 public:
  Sweep(const GptqFactor& factor, const GptqOptions& options)
      : factor_(factor),
        options_(options),
        cols_(factor.cols()),
        stride_(RoundUp(cols_, GptqFactor::kStrip)),
        group_(GroupLength(options, cols_)),
        values_(static_cast<size_t>(kChunkRows * stride_)),
        errors_(static_cast<size_t>(kChunkRows * kBlock)),
        inner_(static_cast<size_t>(kBlock * kBlock)) {}

  /// Rows [first, first + count): their codes, scales and zeros, and errors[first …].
  void Run(const float* weights, int64_t first, int64_t count, GptqMatrix& matrix, GptqErrors* errors) {
    const auto itself = [](int64_t, int64_t, const float* x) { return *x; };
    LoadRows(weights + first * cols_, count);
    RunBlocks(count, itself);
    for (int64_t r = 0; r < count; ++r) errors[first + r].weights = Sum(r);

    SubtractNearest(weights + first * cols_, count);
    RunBlocks(count, itself);
    for (int64_t r = 0; r < count; ++r) errors[first + r].nearest = Sum(r);

    LoadRows(weights + first * cols_, count);
    RunBlocks(count, [&](int64_t r, int64_t column, const float* x) {
      GptqGrid& grid = grids_[static_cast<size_t>(r)];
      if (column % group_ == 0) {
        grid = FindGptqGrid(x, std::min(group_, cols_ - column), options_);
        SetGrid(matrix, column / group_, first + r, grid);
      }
      const int code = grid.Code(*x);
      const int64_t natural = factor_.order()[static_cast<size_t>(column)];
      matrix.codes[static_cast<size_t>((first + r) * cols_ + natural)] = static_cast<uint8_t>(code);
      return *x - grid.Value(code);
    });
    for (int64_t r = 0; r < count; ++r) errors[first + r].gptq = Sum(r);
  }

 private:
  float* row(int64_t r) { return values_.data() + r * stride_; }
  double Sum(int64_t r) const { return sums_[static_cast<size_t>(r)]; }

  void LoadRows(const float* weights, int64_t count) {
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t i = 0; i < cols_; ++i) row(r)[i] = weights[r * cols_ + factor_.order()[static_cast<size_t>(i)]];
    }
  }

  /// The rows less what rounding to nearest makes of them, its groups in the columns' own order.
  void SubtractNearest(const float* weights, int64_t count) {
    std::vector<float> error(static_cast<size_t>(cols_));
    for (int64_t r = 0; r < count; ++r) {
      const float* const w = weights + r * cols_;
      for (int64_t begin = 0; begin < cols_; begin += group_) {
        const int64_t end = std::min(begin + group_, cols_);
        const GptqGrid grid = FindGptqGrid(w + begin, end - begin, options_);
        for (int64_t i = begin; i < end; ++i) error[static_cast<size_t>(i)] = w[i] - grid.Value(grid.Code(w[i]));
      }
      for (int64_t i = 0; i < cols_; ++i) {
        row(r)[i] = error[static_cast<size_t>(factor_.order()[static_cast<size_t>(i)])];
      }
    }
  }

  /// Column after column, e = residual(r, column, &x) / U[column][column] is taken from the later columns by U's row.
  /// With d the residuals in all, Σ e² is d·H·transpose(d).
  template <typename Residual>
  void RunBlocks(int64_t count, const Residual& residual) {
    sums_.fill(0.0);
    for (int64_t begin = 0; begin < cols_;) {
      const int64_t end = BlockEnd(begin, group_, cols_);
      CopyInner(begin, end);
      for (int64_t r = 0; r < count; ++r) RunInner(r, begin, end, residual);
      for (int64_t s = end / GptqFactor::kStrip; s * GptqFactor::kStrip < cols_; ++s) {
        // Columns before `end` in the first strip change too; they are done with.
        gptq::SubtractStrip(values_.data() + s * GptqFactor::kStrip, stride_, errors_.data(), kBlock,
                            factor_.strip(s, begin), count, end - begin);
      }
      begin = end;
    }
  }

  template <typename Residual>
  void RunInner(int64_t r, int64_t begin, int64_t end, const Residual& residual) {
    float* const x = row(r) + begin;
    float* const e = errors_.data() + r * kBlock;
    double sum = 0;
    for (int64_t j = 0; j < end - begin; ++j) {
      const float* const u = inner_.data() + j * kBlock;
      e[j] = residual(r, begin + j, x + j) / u[j];
      sum += static_cast<double>(e[j]) * e[j];
      for (int64_t c = j + 1; c < end - begin; ++c) x[c] -= e[j] * u[c];
    }
    sums_[static_cast<size_t>(r)] += sum;
  }

  void CopyInner(int64_t begin, int64_t end) {
    constexpr int64_t kStrip = GptqFactor::kStrip;
    for (int64_t j = begin; j < end; ++j) {
      float* const out = inner_.data() + (j - begin) * kBlock;
      for (int64_t c = j; c < end; ++c) out[c - begin] = factor_.strip(c / kStrip, j)[c % kStrip];
    }
  }

  const GptqFactor& factor_;
  const GptqOptions& options_;
  int64_t cols_;
  int64_t stride_;  // of a row in values_: whole strips
  int64_t group_;
  std::vector<float> values_;  // [kChunkRows, stride_]
  std::vector<float> errors_;  // [kChunkRows, kBlock]
  std::vector<float> inner_;   // U inside the block, [kBlock, kBlock]
  std::array<double, kChunkRows> sums_{};
  std::array<GptqGrid, kChunkRows> grids_;
};

}  // namespace

int64_t GptqOptions::groups(int64_t cols) const { return CeilDiv(cols, GroupLength(*this, cols)); }

Status GptqOptions::Validate() const {
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
    return InvalidArgument("--bits {}: GPTQ's layout has 2, 3, 4 and 8", bits);
  }
  if (group_size != -1 && (group_size < 8 || group_size > 65'536)) {
    return InvalidArgument("--group-size {}: give 8 to 65536, or -1 for one group a row", group_size);
  }
  if (!(damping >= 0.0 && damping <= 1.0)) return InvalidArgument("--damp {}: give 0 to 1", damping);
  return OkStatus();
}

void GptqMatrix::Dequantize(int64_t row, float* out) const {
  for (int64_t c = 0; c < cols; ++c) {
    const auto at = static_cast<size_t>(group_of[static_cast<size_t>(c)] * rows + row);
    const int code = codes[static_cast<size_t>(row * cols + c)];
    out[c] = ToFloat(Float16{scales[at]}) * static_cast<float>(code - zeros[at]);
  }
}

Result<GptqResult> QuantizeGptq(const float* weights, int64_t rows, const GptqFactor& factor,
                                const GptqOptions& options, ThreadPool& pool) {
  RETURN_IF_ERROR(options.Validate());
  const int64_t cols = factor.cols();
  RETURN_IF_ERROR(CheckMagnitudes(weights, rows, cols, options.bits, pool));
  GptqResult result{.matrix = EmptyMatrix(rows, cols, options)};
  const int64_t group = GroupLength(options, cols);
  for (int64_t i = 0; i < cols; ++i) {
    const auto column = static_cast<size_t>(factor.order()[static_cast<size_t>(i)]);
    result.matrix.group_of[column] = static_cast<int32_t>(i / group);
  }
  std::vector<GptqErrors> errors(static_cast<size_t>(rows));
  std::vector<Sweep> sweeps(static_cast<size_t>(pool.size()), Sweep(factor, options));
  pool.ParallelFor(CeilDiv(rows, kChunkRows), 1, [&](int64_t from, int64_t to, int worker) {
    for (int64_t chunk = from; chunk < to; ++chunk) {
      const int64_t first = chunk * kChunkRows;
      sweeps[static_cast<size_t>(worker)].Run(weights, first, std::min(kChunkRows, rows - first), result.matrix,
                                              errors.data());
    }
  });
  for (const GptqErrors& error : errors) {
    result.errors.gptq += error.gptq;
    result.errors.nearest += error.nearest;
    result.errors.weights += error.weights;
  }
  return result;
}

Result<GptqMatrix> QuantizeToNearest(const float* weights, int64_t rows, int64_t cols, const GptqOptions& options,
                                     ThreadPool& pool) {
  RETURN_IF_ERROR(options.Validate());
  RETURN_IF_ERROR(CheckMagnitudes(weights, rows, cols, options.bits, pool));
  GptqMatrix matrix = EmptyMatrix(rows, cols, options);
  const int64_t group = GroupLength(options, cols);
  for (int64_t i = 0; i < cols; ++i) matrix.group_of[static_cast<size_t>(i)] = static_cast<int32_t>(i / group);
  pool.ParallelFor(rows, 8, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const float* const w = weights + r * cols;
      for (int64_t begin = 0; begin < cols; begin += group) {
        const int64_t end = std::min(begin + group, cols);
        const GptqGrid grid = FindGptqGrid(w + begin, end - begin, options);
        SetGrid(matrix, begin / group, r, grid);
        for (int64_t i = begin; i < end; ++i) {
          matrix.codes[static_cast<size_t>(r * cols + i)] = static_cast<uint8_t>(grid.Code(w[i]));
        }
      }
    }
  });
  return matrix;
}

}  // namespace kvasir
