// Checks of stored tensors, and the list of matrices that is made of them.
#include "model/quantized_reader.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/log.h"

namespace kvasir::quantized {

std::optional<std::string> StemOf(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  return std::string(name.substr(0, name.size() - suffix.size()));
}

std::optional<DType> GroupedType(int64_t bits, int64_t group, int64_t cols) {
  const bool wide = group % 128 == 0 && cols % 128 == 0;
  if (!wide && (group % 32 != 0 || cols % 32 != 0)) return std::nullopt;
  switch (bits) {
    case 2: return wide ? DType::kInt2G128 : DType::kInt2G32;
    case 3: return wide ? DType::kInt3G128 : DType::kInt3G32;
    case 4: return wide ? DType::kInt4G128 : DType::kInt4G32;
    case 8: return wide ? DType::kInt8G128 : DType::kInt8G32;
    default: return std::nullopt;
  }
}

const RawTensor* MatrixList::Need(const std::string& name) {
  const RawTensor* tensor = stored_.Find(name);
  if (tensor == nullptr) missing_.insert(name);
  return tensor;
}

void MatrixList::AddRows(Matrix matrix, std::shared_ptr<const RowEncoder> rows) {
  hidden_.insert(matrix.parts.begin(), matrix.parts.end());
  added_.push_back({std::move(matrix), std::move(rows)});
}

Status MatrixList::Wrong(const RawTensor& tensor, std::string_view why) const {
  const std::string file = tensor.file != nullptr ? tensor.file->path().string() : stored_.description();
  return InvalidData("{}: tensor \"{}\" of shape [{}] and type {} {}", file, tensor.name, fmt::join(tensor.shape, ", "),
                     DTypeName(tensor.dtype), why);
}

Status MatrixList::CheckShape(const RawTensor& tensor, std::initializer_list<int64_t> shape) const {
  if (std::ranges::equal(tensor.shape, shape)) return OkStatus();
  return Wrong(tensor, fmt::format("must have the shape [{}]; the checkpoint or its quantisation settings are damaged",
                                   fmt::join(shape, ", ")));
}

Status MatrixList::CheckType(const RawTensor& tensor, std::initializer_list<DType> types) const {
  if (std::ranges::find(types, tensor.dtype) != types.end()) return OkStatus();
  std::string names;
  for (DType type : types) names += (names.empty() ? "" : " or ") + std::string(DTypeName(type));
  return Wrong(tensor, fmt::format("must be of type {}; the checkpoint is damaged or of another layout", names));
}

Status MatrixList::CheckScales(const RawTensor& tensor) const {
  RETURN_IF_ERROR(CheckType(tensor, {DType::kF32, DType::kF16, DType::kBF16}));
  const Floats values(tensor);
  for (int64_t i = 0, n = tensor.elements(); i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return Wrong(
          tensor,
          fmt::format("holds {} at element {}; the checkpoint is damaged, download or quantise it anew", values[i], i));
    }
  }
  return OkStatus();
}

Status MatrixList::CheckMatrix(const RawTensor& tensor) const {
  if (tensor.shape.size() != 2) return Wrong(tensor, "must be a matrix");
  if (tensor.elements() == 0) return Wrong(tensor, "is empty");
  return OkStatus();
}

void MatrixList::TellWidened() const {
  int64_t count = 0;
  int64_t extra = 0;
  const Matrix* first = nullptr;
  for (const Added& added : added_) {
    if (added.matrix.type) continue;
    ++count;
    if (first == nullptr) first = &added.matrix;
    extra += *DTypeBytes(DType::kF32, added.matrix.rows * added.matrix.cols);
    for (const RawTensor* part : added.matrix.parts) extra -= part->bytes;
  }
  if (count == 0) return;
  LogWarning(
      "{}: {} of {} quantised matrices fit none of the packed types and are widened to f32, {:.1f} MiB more than "
      "stored (\"{}\" is the first: {}); --dtype bf16 takes half of it",
      stored_.description(), count, added_.size(), static_cast<double>(extra) / (1 << 20), first->name, first->misfit);
}

Result<std::vector<RawTensor>> MatrixList::Finish() const {
  if (!missing_.empty()) {
    constexpr size_t kShown = 64;
    std::vector<std::string> shown(missing_.begin(), missing_.end());
    shown.resize(std::min(shown.size(), kShown));
    const size_t total = missing_.size();
    return InvalidData("{}: {} tensor{} of quantised matrices {} missing: \"{}\"{}; the checkpoint is incomplete",
                       stored_.description(), total, total == 1 ? "" : "s", total == 1 ? "is" : "are",
                       fmt::join(shown, "\", \""), total > kShown ? fmt::format(" and {} more", total - kShown) : "");
  }
  std::map<const RawTensor*, const Added*> at;
  for (const Added& added : added_) at[added.matrix.place] = &added;
  std::vector<RawTensor> tensors;
  for (const RawTensor& tensor : stored_.tensors()) {
    if (const auto found = at.find(&tensor); found != at.end()) {
      const Matrix& matrix = found->second->matrix;
      const DType dtype = matrix.type.value_or(DType::kF32);
      // No larger than the codes allow: at most four bytes for two bits.
      tensors.push_back({.name = matrix.name,
                         .dtype = dtype,
                         .shape = {matrix.rows, matrix.cols},
                         .bytes = *DTypeBytes(dtype, matrix.rows * matrix.cols),
                         .rows = found->second->rows});
    } else if (!hidden_.contains(&tensor)) {
      tensors.push_back(tensor);
    }
  }
  TellWidened();
  return tensors;
}

}  // namespace kvasir::quantized
