// What `kvasir quantize` reads: tensors as the output will have them, row by row, wherever their rows lie.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/gguf_write.h"
#include "io/tensor_source.h"
#include "model/model.h"

namespace kvasir::apps {

/// Rows target, target + target_step, … of an output tensor: `count` rows of a tensor of the source.
struct RowPiece {
  int64_t target = 0;
  int64_t target_step = 1;
  int64_t count = 0;
  const RawTensor* tensor = nullptr;
  int64_t first = 0;
  int64_t step = 1;
  bool transposed = false;   // the source's columns are the rows
  int64_t slice_offset = 0;  // elements before the matrix inside the source tensor
};

/// A tensor of the output; matrices stacked in one are rows of it, and the values of a vector one row.
struct SourceTensor {
  std::string name;
  std::vector<int64_t> shape;    // outermost first
  DType dtype = DType::kF32;     // of the source, the first piece's
  std::vector<RowPiece> pieces;  // together every row once
  bool by_value = false;         // a vector whose pieces are of single values, not of rows
  float addend = 0.0f;           // to every value
  // Each value is multiplied with those of its column and row, powers of two; empty: with none.
  std::vector<float> column_factors;
  std::vector<float> row_factors;
};

int64_t RowCount(const SourceTensor& tensor);
int64_t ColumnCount(const SourceTensor& tensor);

/// Reads rows of one tensor as fp32. Immutable; thread-safe. REQUIRES: tensor and source outlive it.
class RowReader {
 public:
  static Result<RowReader> Make(const SourceTensor& tensor);
  void Read(int64_t row, float* out) const;
  /// Mapped pages of rows [begin, end) are not needed again.
  void GiveBack(int64_t begin, int64_t end) const;

 private:
  /// Where a row lies.
  struct Place {
    const RowPiece* piece;
    int64_t row;
  };
  explicit RowReader(const SourceTensor& tensor) : tensor_(&tensor) {}
  void ReadStored(int64_t row, float* out) const;

  const SourceTensor* tensor_;
  std::vector<Place> places_;  // one per row, or per value
};

/// A model to be quantised, as tensors and metadata of a GGUF file or of safetensors.
struct QuantizeSource {
  ModelFiles files;
  std::vector<SourceTensor> tensors;
  std::vector<GgufEntry> entries;        // GGUF only
  std::vector<GgufTensor> extra;         // small tensors beyond the source's, to be written first
  std::vector<std::string> extra_bytes;  // their data
  bool quantized = false;                // some tensor is in blocks already
};

/// The tensors of a GGUF file as they are, with all its metadata.
Result<QuantizeSource> GgufAsGguf(ModelFiles files);

/// A Hugging Face checkpoint under GGUF's names, rows and keys. `pre`: tokenizer.ggml.pre, or empty to find it out.
Result<QuantizeSource> CheckpointAsGguf(ModelFiles files, const std::string& pre);

/// The tensors of a checkpoint as they are.
Result<QuantizeSource> CheckpointAsIs(ModelFiles files);

}  // namespace kvasir::apps
