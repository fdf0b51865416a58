// Second moments of what a layer's matrices are multiplied with, which GPTQ calls the Hessian.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "kernels/exec.h"
#include "model/layer_runner.h"
#include "quant/gptq.h"

namespace kvasir::apps {

/// Keeps the inputs of chosen matrices of one run. Not thread-safe.
class InputKeeper final : public MatMulObserver {
 public:
  /// Forgets all inputs; keeps those of these matrices of a layer from now on. They outlive the collection.
  void Watch(std::span<const LayerMatrix> matrices);
  void OnMatMul(const PackedWeight& w, MatView<const float> x) override;
  /// The latest inputs of the matrix of this name, or no rows.
  MatView<const float> Find(const std::string& name) const;

 private:
  struct Kept {
    const LayerMatrix* matrix = nullptr;
    int64_t rows = 0;
    std::vector<float> values;
  };
  std::vector<Kept> kept_;
};

/// Adds up Σ x·transpose(x) over the inputs x of chosen matrices, in fp32: each pass's tokens in one chain, then to the
/// sum. The same bits for any number of threads. Not thread-safe.
class InputMoments final : public MatMulObserver {
 public:
  struct Moments {
    const LayerMatrix* matrix = nullptr;
    int64_t tokens = 0;
    Buffer sum;  // [cols, cols] fp32; the lower triangle, and what else stands in its blocks
    /// Σ x·transpose(x' - x), x' the inputs that the original layers make: [cols, cols], or empty.
    Buffer drift;

    int64_t cols() const { return matrix->cols; }
  };

  InputMoments(ThreadPool& pool, const KernelSet& kernels);

  /// Forgets all sums and watches these matrices from now on; they outlive the collection. With `originals`, which
  /// holds the inputs of the same tokens in the original model whenever an input comes, their drift is added up too.
  /// ResourceExhausted.
  Status Watch(std::span<const LayerMatrix* const> matrices, const InputKeeper* originals);

  void OnMatMul(const PackedWeight& w, MatView<const float> x) override;

  /// The first input that held NaN or infinity (the matrix is named), or memory that was lacking.
  const Status& status() const { return status_; }
  std::span<Moments> moments() { return moments_; }

 private:
  Status Add(Moments& moments, MatView<const float> x);
  Status AddDrift(Moments& moments, MatView<const float> x, MatView<const float> flipped, float* packed);

  Arena arena_{MemoryOwner::kOther};    // for the inputs in both layouts
  Arena scratch_{MemoryOwner::kOther};  // of the products
  ExecContext ctx_;
  const InputKeeper* originals_ = nullptr;
  std::vector<Moments> moments_;
  Status status_;
};

/// weights += weights · drift' · inverse(H), drift' transposed and H damped: with them, what comes out of the inputs as
/// they are is as near as can be to what the weights make of the original ones. weights: [rows, cols], fp32; moments
/// and factor belong together. (Li 2025, arXiv:2504.02692, aims at the same within GPTQ's own steps.)
Status AimAtOriginals(const InputMoments::Moments& moments, const GptqFactor& factor, int64_t rows, float* weights,
                      ThreadPool& pool, const KernelSet& kernels);

}  // namespace kvasir::apps
