// Named raw tensors inside mapped files, whatever the file format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"
#include "base/status.h"

namespace kvasir {

/// Makes the rows of a matrix whose parts stand in a file in another layout than row by row (columns first, codes and
/// scales in tensors of their own). Immutable; thread-safe; reads memory of the source that it belongs to.
class RowEncoder {
 public:
  virtual ~RowEncoder() = default;
  /// Writes row `row` as blocks of the tensor's dtype, DTypeBytes(dtype, columns) bytes.
  virtual void Encode(int64_t row, std::byte* out) const = 0;
  /// Value i of an encoded row belongs to input order()[i]; empty: to input i. The same for every row.
  virtual std::span<const int32_t> order() const { return {}; }
  /// Gives the mapped pages of the whole matrix back; encoding more rows maps them again.
  virtual void GiveBack() const {}
};

/// One tensor as it lies in a file: row-major, contiguous, last dimension fastest (GGUF's dimensions are reversed to
/// this order on reading). Does not own the bytes.
struct RawTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;              // outermost first; empty for a scalar
  const std::byte* data = nullptr;         // not necessarily aligned; null where `rows` makes it
  int64_t bytes = 0;                       // exactly what dtype and shape demand
  const MappedFile* file = nullptr;        // where it is mapped, to give pages back
  std::shared_ptr<const RowEncoder> rows;  // of a matrix that is made row by row; null for one that lies in `data`

  int64_t elements() const {
    int64_t product = 1;
    for (int64_t dim : shape) product *= dim;  // checked by the parser
    return product;
  }
};

/// A set of uniquely named tensors. Immutable; thread-safe; owns its mappings.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  /// The tensor, or null. The pointer lives as long as the source.
  virtual const RawTensor* Find(std::string_view name) const = 0;

  /// All tensors, in the order of their files.
  virtual std::span<const RawTensor> tensors() const = 0;

  /// The tensors as they lie in the files, all with `data`: others than tensors() where some of those have `rows`.
  virtual std::span<const RawTensor> stored() const { return tensors(); }

  /// For messages: the file or folder it was opened from.
  virtual const std::string& description() const = 0;
};

}  // namespace kvasir
