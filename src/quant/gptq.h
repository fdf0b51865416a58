// GPTQ (Frantar 2022, arXiv:2210.17323): a matrix rounded column by column, each column's error made good by the
// columns after it, as the inputs' second moments say. Plain arrays; no file format.
#pragma once

#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "base/thread_pool.h"

namespace kvasir {

struct GptqOptions {
  int bits = 4;                        // 2, 3, 4 or 8
  int64_t group_size = 128;            // inputs that share a scale; -1: all of a row
  bool symmetric = false;              // the zero point is the middle code
  bool act_order = false;              // columns in falling order of their inputs' power; groups follow that order
  bool search_grid = false;            // each grid shrunk to where the sum of |error|^2.4 is least
  double damping = 0.01;               // of the mean diagonal, added to the diagonal
  int64_t groups(int64_t cols) const;  // of a matrix of so many columns
  Status Validate() const;
};

/// A matrix of `rows` outputs × `cols` inputs on a grid: w[r][c] = scale · (code - zero), scale (fp16) and zero of
/// group group_of[c]. Zero points are from 1 to 2^bits - 1, never 0: the layout of files stores them less one, and
/// readers disagree about what -1 means.
struct GptqMatrix {
  int bits = 4;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t groups = 0;
  std::vector<uint8_t> codes;     // [rows, cols]
  std::vector<uint16_t> scales;   // [groups, rows], fp16 bits
  std::vector<uint8_t> zeros;     // [groups, rows]
  std::vector<int32_t> group_of;  // [cols]

  /// One row's values: out [cols].
  void Dequantize(int64_t row, float* out) const;
};

/// What GPTQ needs of the inputs: with H their second moments, damped, in the order of processing, the upper triangular
/// U with inverse(H) = transpose(U)·U. Made once for all matrices with the same inputs. Immutable; thread-safe.
class GptqFactor {
 public:
  /// hessian: [cols, cols] row-major, symmetric; only the lower triangle is read, in one scale for all elements (2/n or
  /// 1/n: no result depends on it). Inputs that were always zero get the mean diagonal: their columns are rounded to
  /// nearest. Where the factorisation fails, damping is raised tenfold (`damping()` says to what). InvalidData when H
  /// holds NaN or infinity; ResourceExhausted. Work: 2/3 · cols³ fp64 FLOPs on all threads, the same bits for any
  /// number of them; memory while it works: 8 · cols² bytes beside the result's 4 · cols².
  static Result<GptqFactor> Make(const float* hessian, int64_t cols, const GptqOptions& options, ThreadPool& pool);

  int64_t cols() const { return cols_; }
  /// order()[i] is the column that comes i-th.
  const std::vector<int32_t>& order() const { return order_; }
  double damping() const { return damping_; }
  int64_t dead() const { return dead_; }  // inputs that were always zero
  /// U[row][8·strip … 8·strip + 7] in the order of processing; consecutive rows follow each other.
  const float* strip(int64_t strip, int64_t row) const { return upper_.as<float>() + (strip * cols_ + row) * kStrip; }
  static constexpr int64_t kStrip = 8;

  /// rows[r] = rows[r] · inverse(H), damped, columns in their own order. rows: [count, cols].
  void Solve(float* rows, int64_t count, ThreadPool& pool) const;

 private:
  int64_t OrderAt(int64_t i) const { return order_[static_cast<size_t>(i)]; }

  int64_t cols_ = 0;
  int64_t dead_ = 0;
  double damping_ = 0;
  std::vector<int32_t> order_;
  Buffer upper_;  // [strips of 8 columns][cols][8]
};

/// The sum over rows of d·H·transpose(d), H damped: what an error of the weights does to the outputs, squared.
struct GptqErrors {
  double gptq = 0;     // d: what GPTQ left
  double nearest = 0;  // d: what rounding to the nearest code of the same kind of grid leaves
  double weights = 0;  // d: the weights themselves, for relative figures
};

struct GptqResult {
  GptqMatrix matrix;
  GptqErrors errors;
};

/// Quantises weights [rows, factor.cols()] (row-major, finite). Rows are independent and spread over the pool; the
/// result is the same for any number of threads. A group's grid is found when its first column is reached, from the
/// weights as they are then. InvalidData when a weight is beyond what fp16 scales can say.
Result<GptqResult> QuantizeGptq(const float* weights, int64_t rows, const GptqFactor& factor,
                                const GptqOptions& options, ThreadPool& pool);

/// The same grids and nothing made good: every weight rounded to its nearest code. Needs no inputs.
Result<GptqMatrix> QuantizeToNearest(const float* weights, int64_t rows, int64_t cols, const GptqOptions& options,
                                     ThreadPool& pool);

}  // namespace kvasir
