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

namespace kvasir::apps {

/// Adds up Σ x·transpose(x) over the inputs x of chosen matrices, in fp32: each pass's tokens in one chain, then to the
/// sum. The same bits for any number of threads. Not thread-safe.
class InputMoments final : public MatMulObserver {
 public:
  struct Moments {
    const LayerMatrix* matrix = nullptr;
    int64_t tokens = 0;
    Buffer sum;  // [cols, cols] fp32; the lower triangle, and what else stands in its blocks

    int64_t cols() const { return matrix->cols; }
  };

  InputMoments(ThreadPool& pool, const KernelSet& kernels);

  /// Forgets all sums and watches these matrices from now on; they outlive the collection. ResourceExhausted.
  Status Watch(std::span<const LayerMatrix* const> matrices);

  void OnMatMul(const PackedWeight& w, MatView<const float> x) override;

  /// The first input that held NaN or infinity (the matrix is named), or memory that was lacking.
  const Status& status() const { return status_; }
  std::span<Moments> moments() { return moments_; }

 private:
  Status Add(Moments& moments, MatView<const float> x);

  Arena arena_{MemoryOwner::kOther};    // for the inputs in both layouts
  Arena scratch_{MemoryOwner::kOther};  // of the products
  ExecContext ctx_;
  std::vector<Moments> moments_;
  Status status_;
};

}  // namespace kvasir::apps
