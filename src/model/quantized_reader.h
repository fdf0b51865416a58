// What the readers of quantised checkpoints share; internal to quantized_*.cc.
#pragma once

#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"
#include "io/json.h"
#include "io/tensor_source.h"
#include "quant/coded_blocks.h"

namespace kvasir::quantized {

/// Element i of an array that need not be aligned.
template <typename T>
T LoadAt(const std::byte* data, int64_t i) {
  T value;
  std::memcpy(&value, data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

/// The elements of an f32, f16 or bf16 tensor.
class Floats {
 public:
  Floats() = default;
  /// REQUIRES: IsPlainFloat(tensor.dtype).
  explicit Floats(const RawTensor& tensor) : data_(tensor.data), dtype_(tensor.dtype) {}
  float operator[](int64_t i) const {
    if (dtype_ == DType::kF16) return ToFloat(LoadAt<Float16>(data_, i));
    if (dtype_ == DType::kBF16) return ToFloat(LoadAt<BFloat16>(data_, i));
    return LoadAt<float>(data_, i);
  }

 private:
  const std::byte* data_ = nullptr;
  DType dtype_ = DType::kF32;
};

inline bool IsPlainFloat(DType type) { return type == DType::kF32 || IsFloat16Bit(type); }

/// A matrix as a reader has found it.
struct Matrix {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
  std::optional<DType> type;            // a coded type, or nothing: it fits none
  std::vector<int32_t> order;           // of a coded matrix
  std::string_view misfit;              // why it fits none
  const RawTensor* place = nullptr;     // the stored tensor where it stands in the list
  std::vector<const RawTensor*> parts;  // the stored tensors that it is made of, `place` among them
};

/// Rows made of several stored tensors. REQUIRES: these outlive it.
class RowsOfParts : public RowEncoder {
 public:
  explicit RowsOfParts(std::vector<const RawTensor*> parts) : parts_(std::move(parts)) {}
  void GiveBack() const override {
    for (const RawTensor* part : parts_) {
      if (part->file != nullptr) part->file->GiveBack(part->data, static_cast<size_t>(part->bytes));
    }
  }

 private:
  std::vector<const RawTensor*> parts_;
};

/// Rows in blocks of a coded type. Layout is a plain struct that knows where a checkpoint keeps things:
///   CodedBlock Block(row, input)  scale and minimum of the block that holds this weight
///   uint8_t    Code(row, input)
///   float      Value(row, input)  the weight itself
template <typename Layout>
class CodedRows final : public RowsOfParts {
 public:
  /// REQUIRES: whole blocks of matrix.type in its columns, and one CodedBlock for each of them.
  CodedRows(Layout layout, Matrix matrix)
      : RowsOfParts(std::move(matrix.parts)),
        layout_(std::move(layout)),
        type_(*matrix.type),
        cols_(matrix.cols),
        order_(std::move(matrix.order)) {}

  void Encode(int64_t row, std::byte* out) const override {
    const int64_t n = DTypeBlockSize(type_);
    for (int64_t k = 0; k < cols_; k += n) {
      const CodedBlock block = layout_.Block(row, Input(k));
      std::memcpy(out, &block, sizeof(block));
      out += sizeof(block);
      for (int64_t i = 0; i < n; ++i) out[i] = std::byte{layout_.Code(row, Input(k + i))};
      out += n;
    }
  }
  std::span<const int32_t> order() const override { return order_; }

 private:
  int64_t Input(int64_t k) const { return order_.empty() ? k : order_[static_cast<size_t>(k)]; }

  Layout layout_;
  DType type_;
  int64_t cols_;
  std::vector<int32_t> order_;
};

/// Rows of fp32 values, of matrices that fit no coded type.
template <typename Layout>
class WideRows final : public RowsOfParts {
 public:
  WideRows(Layout layout, Matrix matrix)
      : RowsOfParts(std::move(matrix.parts)), layout_(std::move(layout)), cols_(matrix.cols) {}
  void Encode(int64_t row, std::byte* out) const override {
    for (int64_t k = 0; k < cols_; ++k) {
      const float value = layout_.Value(row, k);
      std::memcpy(out + k * static_cast<int64_t>(sizeof(value)), &value, sizeof(value));
    }
  }

 private:
  Layout layout_;
  int64_t cols_;
};

/// The tensors of a checkpoint while readers turn them into matrices.
class MatrixList {
 public:
  /// REQUIRES: stored outlives the list and all that is made from it.
  explicit MatrixList(const TensorSource& stored) : stored_(stored) {}

  std::span<const RawTensor> tensors() const { return stored_.tensors(); }
  const RawTensor* Find(std::string_view name) const { return stored_.Find(name); }
  /// The tensor; null where it is missing, which Finish will tell.
  const RawTensor* Need(const std::string& name);

  template <typename Layout>
  void Add(Matrix matrix, Layout layout) {
    std::erase(matrix.parts, nullptr);  // helpers that this matrix does without
    if (matrix.type) {
      AddRows(matrix, std::make_shared<CodedRows<Layout>>(std::move(layout), matrix));
    } else {
      AddRows(matrix, std::make_shared<WideRows<Layout>>(std::move(layout), matrix));
    }
  }
  /// Leaves a stored tensor out of the list.
  void Hide(const RawTensor& tensor) { hidden_.insert(&tensor); }

  bool empty() const { return added_.empty(); }
  /// The list as models see it, or one error naming all missing tensors. Says which matrices were widened.
  Result<std::vector<RawTensor>> Finish() const;

  /// An error about a stored tensor.
  Status Wrong(const RawTensor& tensor, std::string_view why) const;
  Status CheckShape(const RawTensor& tensor, std::initializer_list<int64_t> shape) const;
  Status CheckType(const RawTensor& tensor, std::initializer_list<DType> types) const;
  /// That the tensor is of f32, f16 or bf16 and holds neither NaN nor infinity.
  Status CheckScales(const RawTensor& tensor) const;
  /// That the tensor is a matrix with elements.
  Status CheckMatrix(const RawTensor& tensor) const;

 private:
  struct Added {
    Matrix matrix;
    std::shared_ptr<const RowEncoder> rows;
  };
  void AddRows(Matrix matrix, std::shared_ptr<const RowEncoder> rows);
  void TellWidened() const;

  const TensorSource& stored_;
  std::vector<Added> added_;
  std::set<const RawTensor*> hidden_;
  std::set<std::string> missing_;
};

/// "a.b" of "a.b" + suffix; nothing where the name ends otherwise.
std::optional<std::string> StemOf(std::string_view name, std::string_view suffix);

/// The type of groups of `group` inputs with `bits` bits, or nothing where no type's blocks divide groups and rows.
std::optional<DType> GroupedType(int64_t bits, int64_t group, int64_t cols);

/// One file each: adds all matrices of its layout. `settings`: the quantisation config.
Status ReadBitsandbytes(const JsonReader& settings, MatrixList& list);
Status ReadGptq(const JsonReader& settings, MatrixList& list);
Status ReadAwq(const JsonReader& settings, MatrixList& list);
Status ReadFp8(const JsonReader& settings, MatrixList& list);
/// Of compressed-tensors: those whose weights are fp8.
Status ReadCompressedFp8(const JsonReader& settings, MatrixList& list);

}  // namespace kvasir::quantized
