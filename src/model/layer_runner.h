// A model run one layer at a time over samples of text, as calibration does it: only one layer's weights are in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/exec.h"
#include "kernels/views.h"
#include "model/forward.h"
#include "model/model.h"
#include "model/weights.h"

namespace kvasir {

/// A matrix as the files have it: a tensor, or one of those stacked in it.
struct SourceMatrix {
  const RawTensor* tensor = nullptr;
  bool transposed = false;   // stored as [inputs, outputs]
  int64_t slice_offset = 0;  // elements before the matrix inside the tensor

  int64_t rows() const;  // outputs
  int64_t cols() const;  // inputs
  bool operator==(const SourceMatrix&) const = default;
};

/// A packed matrix of the layer in memory.
struct LayerMatrix {
  std::string name;  // "layers.3.qkv"
  LayerPart part = LayerPart::kQkv;
  bool router = false;                // of a mixture; runs before kUp
  const std::byte* data = nullptr;    // by which MatMulObserver knows it
  int64_t cols = 0;                   // inputs
  std::vector<SourceMatrix> sources;  // what its rows come from, each once
};

/// Weights are fp32, so that activations are not rounded. Not thread-safe. Owns the mapped files.
class LayerRunner {
 public:
  /// A Hugging Face folder or .safetensors file of any family, or a GGUF file. Errors as in Model::Load.
  static Result<std::unique_ptr<LayerRunner>> Open(const std::filesystem::path& path, ThreadPool& pool);
  ~LayerRunner();

  const ModelFiles& files() const;
  const DecoderSpec& spec() const { return files().spec; }

  /// x[s] = samples[s] embedded, for all samples, each of the same length: x: [samples · length, width]. The embedding
  /// is in memory only during the call. InvalidArgument: ids outside the vocabulary, more tokens than learned
  /// positions.
  Status Embed(ExecContext& ctx, std::span<const std::vector<int32_t>> samples, MatView<float> x);

  /// Brings layer `layer` into memory in place of the one before it.
  Status LoadLayer(int layer);
  /// Of the loaded layer.
  std::span<const LayerMatrix> matrices() const;
  /// Runs one sample x [length, width] through the loaded layer, in place, up to and with the product `last`.
  /// ctx.observer sees the products.
  Status Run(ExecContext& ctx, LayerPart last, MatView<float> x);

  /// All values of a matrix, row-major [rows, cols] fp32. NaN and infinity are errors naming the tensor.
  Status Read(const SourceMatrix& source, float* out) const;
  /// Puts other values, row-major [rows, cols], in the place of a matrix wherever the loaded layer uses it. They are
  /// copied; the files stay as they are, and so do other layers.
  void Replace(const SourceMatrix& source, const float* values);

 private:
  struct Impl;
  explicit LayerRunner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir
