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

/// One tensor as it lies in a file: row-major, contiguous, last dimension fastest (GGUF's dimensions are reversed to
/// this order on reading). Does not own the bytes.
struct RawTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;        // outermost first; empty for a scalar
  const std::byte* data = nullptr;   // not necessarily aligned
  int64_t bytes = 0;                 // exactly what dtype and shape demand
  const MappedFile* file = nullptr;  // where it is mapped, to give pages back

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

  /// For messages: the file or folder it was opened from.
  virtual const std::string& description() const = 0;
};

}  // namespace kvasir
