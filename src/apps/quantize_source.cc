#include "apps/quantize_source.h"

#include <algorithm>
#include <cstring>

#include "quant/quantize.h"

namespace kvasir::apps {
namespace {

/// One piece: all rows of a tensor of the source, in place.
SourceTensor WholeTensor(const RawTensor& tensor) {
  SourceTensor whole{.name = tensor.name, .shape = tensor.shape, .dtype = tensor.dtype};
  if (whole.shape.empty()) whole.shape = {1};
  whole.pieces.push_back({.count = RowCount(whole), .tensor = &tensor});
  return whole;
}

void AddWhole(const ModelFiles& files, QuantizeSource* source) {
  for (const RawTensor& tensor : files.source->tensors()) {
    source->quantized = source->quantized || DTypeBlockSize(tensor.dtype) > 1;
    source->tensors.push_back(WholeTensor(tensor));
  }
}

float ReadValue(const RawTensor& tensor, int64_t i) {
  float value = 0.0f;
  DequantizeRow(tensor.dtype, tensor.data + i * DTypeBlockBytes(tensor.dtype), 1, &value);
  return value;
}

}  // namespace

int64_t ColumnCount(const SourceTensor& tensor) { return tensor.shape.back(); }

int64_t RowCount(const SourceTensor& tensor) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  return rows;
}

Result<RowReader> RowReader::Make(const SourceTensor& tensor) {
  RowReader reader(tensor);
  const int64_t rows = tensor.by_value ? ColumnCount(tensor) : RowCount(tensor);
  reader.places_.resize(static_cast<size_t>(rows), {nullptr, 0});
  for (const RowPiece& piece : tensor.pieces) {
    for (int64_t i = 0; i < piece.count; ++i) {
      const int64_t target = piece.target + i * piece.target_step;
      KVASIR_CHECK(target >= 0 && target < rows);
      reader.places_[static_cast<size_t>(target)] = {&piece, piece.first + i * piece.step};
    }
  }
  if (std::ranges::any_of(reader.places_, [](const Place& place) { return place.piece == nullptr; })) {
    return Internal("tensor \"{}\": not all of its rows come from somewhere", tensor.name);
  }
  return reader;
}

void RowReader::Read(int64_t row, float* out) const {
  ReadStored(row, out);
  const float by_row = tensor_->row_factors.empty() ? 1.0f : tensor_->row_factors[static_cast<size_t>(row)];
  const std::vector<float>& by_column = tensor_->column_factors;
  if (by_row == 1.0f && by_column.empty()) return;
  for (int64_t i = 0; i < ColumnCount(*tensor_); ++i) {
    out[i] *= by_column.empty() ? by_row : by_row * by_column[static_cast<size_t>(i)];
  }
}

void RowReader::ReadStored(int64_t row, float* out) const {
  const int64_t columns = ColumnCount(*tensor_);
  if (tensor_->by_value) {
    for (int64_t i = 0; i < columns; ++i) {
      const Place& place = places_[static_cast<size_t>(i)];
      out[i] = ReadValue(*place.piece->tensor, place.piece->slice_offset + place.row) + tensor_->addend;
    }
    return;
  }
  const Place& place = places_[static_cast<size_t>(row)];
  const RawTensor& raw = *place.piece->tensor;
  if (raw.rows != nullptr) {
    std::vector<std::byte> encoded(static_cast<size_t>(*DTypeBytes(raw.dtype, columns)));
    raw.rows->Encode(place.piece->slice_offset / columns + place.row, encoded.data());
    const std::span<const int32_t> order = raw.rows->order();
    if (order.empty()) {
      DequantizeRow(raw.dtype, encoded.data(), columns, out);
    } else {
      std::vector<float> values(static_cast<size_t>(columns));
      DequantizeRow(raw.dtype, encoded.data(), columns, values.data());
      for (size_t i = 0; i < values.size(); ++i) out[order[i]] = values[i];
    }
  } else if (place.piece->transposed) {
    const int64_t stride = raw.shape.back();
    for (int64_t i = 0; i < columns; ++i) out[i] = ReadValue(raw, place.piece->slice_offset + place.row + i * stride);
  } else {
    const int64_t block = (place.piece->slice_offset + place.row * columns) / DTypeBlockSize(raw.dtype);
    DequantizeRow(raw.dtype, raw.data + block * DTypeBlockBytes(raw.dtype), columns, out);
  }
  if (tensor_->addend != 0.0f) {
    for (int64_t i = 0; i < columns; ++i) out[i] += tensor_->addend;
  }
}

void RowReader::GiveBack(int64_t begin, int64_t end) const {
  // Only whole runs; what is picked from all over a tensor is left to the system.
  if (tensor_->pieces.size() != 1 || tensor_->by_value) return;
  const RowPiece& piece = tensor_->pieces[0];
  const RawTensor& raw = *piece.tensor;
  if (raw.file == nullptr || raw.rows != nullptr || piece.transposed || piece.step != 1) return;
  const int64_t row_bytes = *DTypeBytes(raw.dtype, ColumnCount(*tensor_));
  const int64_t at = piece.slice_offset / DTypeBlockSize(raw.dtype) * DTypeBlockBytes(raw.dtype);
  raw.file->GiveBack(raw.data + at + (piece.first + begin) * row_bytes, static_cast<size_t>((end - begin) * row_bytes));
}

Result<QuantizeSource> GgufAsGguf(ModelFiles files) {
  QuantizeSource source;
  ASSIGN_OR_RETURN(source.entries, ReadGgufEntries(files.path));
  const GgufEntry* own = nullptr;
  for (const GgufEntry& entry : source.entries) {
    if (entry.key == "split.no") own = &entry;
  }
  // Opened by any part, a set has the first one's metadata.
  if (own != nullptr && own->value.substr(4) != std::string(own->value.size() - 4, '\0')) {
    return InvalidArgument("{}: is a later part of a split model; give its first part", files.path.string());
  }
  std::erase_if(source.entries, [](const GgufEntry& entry) {
    return entry.key.starts_with("split.") || entry.key == "general.alignment";
  });
  AddWhole(files, &source);
  source.files = std::move(files);
  return source;
}

Result<QuantizeSource> CheckpointAsIs(ModelFiles files) {
  QuantizeSource source;
  AddWhole(files, &source);
  source.files = std::move(files);
  return source;
}

}  // namespace kvasir::apps
