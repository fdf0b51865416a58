// What a matrix quantised by GPTQ becomes in a checkpoint.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "apps/quantize_gptq.h"
#include "io/safetensors.h"
#include "model/layer_runner.h"
#include "quant/gptq_layout.h"

namespace kvasir::apps {

/// Refuses sources that are no Hugging Face checkpoints of plain weights.
Status CheckGptqSource(const ModelFiles& files);

/// Why the output cannot hold the matrix quantised; empty: it can.
std::string WhyKept(const SourceMatrix& source, const GptqFlags& flags);

/// Tensors with their bytes. Movable; the spans stay valid.
class GptqTensorSet {
 public:
  std::span<const TensorToWrite> tensors() const { return tensors_; }

 private:
  friend GptqTensorSet MakeGptqTensors(const SourceMatrix& source, const GptqMatrix& matrix, const float* values,
                                       const GptqFlags& flags, ThreadPool& pool);
  void Add(std::string name, DType dtype, std::vector<int64_t> shape, std::vector<std::byte> bytes);

  std::vector<std::vector<std::byte>> bytes_;
  std::vector<TensorToWrite> tensors_;
};

/// qweight, qzeros, scales and g_idx, or with flags.dequantize one tensor of the source's name and shape. values:
/// [rows, cols], the matrix dequantised. REQUIRES: WhyKept is empty.
GptqTensorSet MakeGptqTensors(const SourceMatrix& source, const GptqMatrix& matrix, const float* values,
                              const GptqFlags& flags, ThreadPool& pool);

/// "quantization_config" as AutoGPTQ has it, JSON on one line.
std::string GptqConfig(const GptqFlags& flags);

}  // namespace kvasir::apps
