// The tensors of a file or of several, found by name; what every TensorSource here is made of.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/tensor_source.h"

namespace kvasir {

/// Uniquely named tensors in file order. Lookup is by binary search rather than by hash, so that no choice of names
/// makes it slow. Immutable; thread-safe. Does not own the bytes.
class TensorList {
 public:
  TensorList() = default;

  /// Fails when a name stands twice; `what` begins the message. Where tensors have a file, both files are named.
  static Result<TensorList> Make(std::vector<RawTensor> tensors, std::string_view what);

  /// The tensor, or null. The pointer is valid as long as the list lives unmoved-from.
  const RawTensor* Find(std::string_view name) const;
  std::span<const RawTensor> tensors() const { return tensors_; }

 private:
  std::vector<RawTensor> tensors_;
  std::vector<uint32_t> by_name_;  // indices into tensors_, sorted by name
};

}  // namespace kvasir
