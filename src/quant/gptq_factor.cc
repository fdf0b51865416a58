// Second moments → the triangle that GPTQ works with, in fp64.
//
// The published code factors H, inverts it, and factors the inverse. With the order of columns reversed (A = P·H·P) one
// factorisation is enough: A = L·transpose(L) gives inverse(H) = transpose(U)·U with U = P·inverse(L)·P.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>

#include "base/checked.h"
#include "quant/gptq.h"
#include "quant/gptq_tile.h"

namespace kvasir {
namespace {

using gptq::SubtractStrip;

constexpr int64_t kBlock = 128;
constexpr int64_t kLanes = gptq::kStripOf<double>;

/// A lower triangle [n, n] of fp64, rows padded to whole strips. Factored and inverted in blocks.
class Triangle {
 public:
  static Result<Triangle> Allocate(int64_t n) {
    Triangle t;
    t.n_ = n;
    t.stride_ = RoundUp(n, kLanes);
    ASSIGN_OR_RETURN(t.values_, Buffer::Allocate(n * t.stride_ * 8, MemoryOwner::kOther));
    ASSIGN_OR_RETURN(t.panel_, Buffer::Allocate(kBlock * t.stride_ * 8, MemoryOwner::kOther));
    return t;
  }

  double* row(int64_t i) { return values_.as<double>() + i * stride_; }
  const double* row(int64_t i) const { return values_.as<double>() + i * stride_; }

  /// Replaces the matrix by its Cholesky factor; false when it is not positive definite. Right-looking.
  bool Factor(ThreadPool& pool) {
    for (int64_t k = 0; k < n_; k += kBlock) {
      const int64_t end = std::min(k + kBlock, n_);
      if (!FactorDiagonal(k, end)) return false;
      pool.ParallelFor(n_ - end, 16, [&](int64_t from, int64_t to, int) {
        for (int64_t i = end + from; i < end + to; ++i) SolveRow(i, k, end);
      });
      PackPanel(k, end, pool);
      constexpr int64_t kRows = 32;
      pool.ParallelFor(CeilDiv(n_ - end, kRows), 1, [&](int64_t from, int64_t to, int) {
        for (int64_t t = from; t < to; ++t) {
          // The longest rows first, so that the last piece is a small one.
          const int64_t last = n_ - t * kRows;
          UpdateRows(std::max(last - kRows, end), last, k, end);
        }
      });
    }
    return true;
  }

  /// Columns [begin, end) of the inverse of the factor: rows begin … n-1 in `x`, strip by strip: [strip][n - begin][4].
  /// REQUIRES: Factor succeeded; end - begin <= kBlock. Thread-safe.
  void InverseColumns(int64_t begin, int64_t end, double* x) const {
    const int64_t height = n_ - begin;
    const int64_t strips = CeilDiv(end - begin, kLanes);
    std::fill_n(x, strips * height * kLanes, 0.0);
    for (int64_t c = 0; c < end - begin; ++c) x[(c / kLanes * height + c) * kLanes + c % kLanes] = 1.0;
    for (int64_t block = begin; block < n_; block += kBlock) {
      const int64_t block_end = std::min(block + kBlock, n_);
      for (int64_t s = 0; s < strips; ++s) {
        double* const strip = x + s * height * kLanes;
        double* const target = strip + (block - begin) * kLanes;
        SubtractStrip(target, kLanes, row(block) + begin, stride_, strip, block_end - block, block - begin);
        for (int64_t i = block; i < block_end; ++i) {
          double* const out = strip + (i - begin) * kLanes;
          SubtractStrip(out, kLanes, row(i) + block, stride_, target, 1, i - block);
          for (int64_t l = 0; l < kLanes; ++l) out[l] /= row(i)[i];
        }
      }
    }
  }

 private:
  bool FactorDiagonal(int64_t k, int64_t end) {
    for (int64_t i = k; i < end; ++i) {
      SolveRow(i, k, i);
      double pivot = row(i)[i];
      for (int64_t j = k; j < i; ++j) pivot -= row(i)[j] * row(i)[j];
      if (!(pivot > 0.0) || !std::isfinite(pivot)) return false;
      row(i)[i] = std::sqrt(pivot);
    }
    return true;
  }

  /// Row i of the factor in columns [k, end), given those columns' diagonal block.
  void SolveRow(int64_t i, int64_t k, int64_t end) {
    double* const x = row(i);
    for (int64_t j = k; j < end; ++j) {
      const double* const l = row(j);
      double sum = x[j];
      for (int64_t p = k; p < j; ++p) sum -= x[p] * l[p];
      x[j] = sum / l[j];
    }
  }

  /// The rows below `end` of columns [k, end), transposed into strips [strip][column][4]; strips begin at multiples
  /// of 4 rows.
  void PackPanel(int64_t k, int64_t end, ThreadPool& pool) {
    const int64_t first = end / kLanes;
    pool.ParallelFor(CeilDiv(n_, kLanes) - first, 16, [&](int64_t from, int64_t to, int) {
      for (int64_t s = first + from; s < first + to; ++s) {
        double* const out = panel_.as<double>() + s * kLanes * kBlock;
        for (int64_t l = 0; l < kLanes; ++l) {
          const int64_t i = s * kLanes + l;
          for (int64_t p = k; p < end; ++p) out[(p - k) * kLanes + l] = i < n_ ? row(i)[p] : 0.0;
        }
      }
    });
  }

  /// Rows [begin, stop), columns from `end` to the diagonal, minus the product of the panel's rows. What stands above
  /// the diagonal in the last strip changes too; nobody reads it.
  void UpdateRows(int64_t begin, int64_t stop, int64_t k, int64_t end) {
    for (int64_t s = end / kLanes; s * kLanes < stop; ++s) {
      const double* const b = panel_.as<double>() + s * kLanes * kBlock;
      const int64_t from = std::max(begin, s * kLanes);
      SubtractStrip(row(from) + s * kLanes, stride_, row(from) + k, stride_, b, stop - from, end - k);
    }
  }

  int64_t n_ = 0;
  int64_t stride_ = 0;
  Buffer values_;
  Buffer panel_;
};

double MeanLiveDiagonal(const float* hessian, int64_t n, int64_t& dead) {
  double sum = 0;
  dead = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double value = hessian[i * n + i];
    if (value > 0) {
      sum += value;
    } else {
      ++dead;
    }
  }
  return dead == n ? 1.0 : sum / static_cast<double>(n - dead);
}

Status CheckFinite(const float* hessian, int64_t n, ThreadPool& pool) {
  std::atomic<bool> bad{false};
  pool.ParallelFor(n, 64, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        if (!std::isfinite(hessian[i * n + j])) bad.store(true, std::memory_order_relaxed);
      }
    }
  });
  return bad ? InvalidData("the inputs' second moments are NaN or beyond fp32's range") : OkStatus();
}

}  // namespace

Result<GptqFactor> GptqFactor::Make(const float* hessian, int64_t cols, const GptqOptions& options, ThreadPool& pool) {
  RETURN_IF_ERROR(options.Validate());
  RETURN_IF_ERROR(CheckFinite(hessian, cols, pool));
  GptqFactor factor;
  factor.cols_ = cols;
  const double mean = MeanLiveDiagonal(hessian, cols, factor.dead_);
  const auto diagonal = [&](int64_t i) {
    const double value = hessian[i * cols + i];
    return value > 0 ? value : mean;
  };
  factor.order_.resize(static_cast<size_t>(cols));
  std::iota(factor.order_.begin(), factor.order_.end(), 0);
  if (options.act_order) {
    std::stable_sort(factor.order_.begin(), factor.order_.end(),
                     [&](int32_t a, int32_t b) { return diagonal(a) > diagonal(b); });
  }

  ASSIGN_OR_RETURN(Triangle triangle, Triangle::Allocate(cols));
  constexpr double kMostDamping = 100.0;
  factor.damping_ = options.damping;
  while (true) {
    pool.ParallelFor(cols, 16, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t p = factor.order_[static_cast<size_t>(cols - 1 - i)];
        for (int64_t j = 0; j < i; ++j) {
          const int64_t q = factor.order_[static_cast<size_t>(cols - 1 - j)];
          triangle.row(i)[j] = hessian[std::max(p, q) * cols + std::min(p, q)];
        }
        triangle.row(i)[i] = diagonal(p) + factor.damping_ * mean;
      }
    });
    if (triangle.Factor(pool)) break;
    if (factor.damping_ > kMostDamping) return InvalidData("the inputs' second moments cannot be factored");
    factor.damping_ = std::max(factor.damping_ * 10, 1e-4);
  }

  const int64_t strips = CeilDiv(cols, kStrip);
  ASSIGN_OR_RETURN(factor.upper_, Buffer::Allocate(strips * cols * kStrip * 4, MemoryOwner::kOther));
  std::vector<Buffer> scratch(static_cast<size_t>(pool.size()));
  for (Buffer& buffer : scratch) {
    ASSIGN_OR_RETURN(buffer, Buffer::Allocate(kBlock * cols * 8, MemoryOwner::kOther));
  }
  auto* const upper = factor.upper_.as<float>();
  pool.ParallelFor(CeilDiv(cols, kBlock), 1, [&](int64_t from, int64_t to, int worker) {
    auto* const x = scratch[static_cast<size_t>(worker)].as<double>();
    for (int64_t b = from; b < to; ++b) {
      const int64_t begin = b * kBlock;
      const int64_t end = std::min(begin + kBlock, cols);
      const int64_t height = cols - begin;
      triangle.InverseColumns(begin, end, x);
      for (int64_t c = begin; c < end; ++c) {
        const int64_t j = cols - 1 - c;  // U's column
        for (int64_t r = c; r < cols; ++r) {
          const int64_t i = cols - 1 - r;  // … and row
          const double value = x[((c - begin) / kLanes * height + r - begin) * kLanes + (c - begin) % kLanes];
          upper[(j / kStrip * cols + i) * kStrip + j % kStrip] = static_cast<float>(value);
        }
      }
    }
  });
  return factor;
}

void GptqFactor::Solve(float* rows, int64_t count, ThreadPool& pool) const {
  constexpr int64_t kRows = 16;  // at once, since all of U is read for them
  const int64_t width = RoundUp(cols_, kStrip);
  pool.ParallelFor(CeilDiv(count, kRows), 1, [&](int64_t from, int64_t to, int) {
    std::vector<float> x(static_cast<size_t>(kRows * width));     // in the order of processing
    std::vector<float> half(static_cast<size_t>(kRows * cols_));  // x · transpose(U), less than zero
    for (int64_t chunk = from; chunk < to; ++chunk) {
      float* const begin = rows + chunk * kRows * cols_;
      const int64_t n = std::min(kRows, count - chunk * kRows);
      std::ranges::fill(x, 0.0f);
      std::ranges::fill(half, 0.0f);
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t i = 0; i < cols_; ++i) x[static_cast<size_t>(r * width + i)] = begin[r * cols_ + OrderAt(i)];
      }
      for (int64_t s = 0; s < width / kStrip; ++s) {
        for (int64_t i = 0; i < std::min((s + 1) * kStrip, cols_); ++i) {
          const float* const u = strip(s, i);
          for (int64_t r = 0; r < n; ++r) {
            const float* const values = x.data() + r * width + s * kStrip;
            float sum = 0.0f;
            for (int64_t l = 0; l < kStrip; ++l) sum += values[l] * u[l];
            half[static_cast<size_t>(r * cols_ + i)] -= sum;
          }
        }
      }
      std::ranges::fill(x, 0.0f);
      for (int64_t s = 0; s < width / kStrip; ++s) {
        SubtractStrip(x.data() + s * kStrip, width, half.data(), cols_, strip(s, 0), n,
                      std::min((s + 1) * kStrip, cols_));
      }
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t i = 0; i < cols_; ++i) begin[r * cols_ + OrderAt(i)] = x[static_cast<size_t>(r * width + i)];
      }
    }
  });
}

}  // namespace kvasir
