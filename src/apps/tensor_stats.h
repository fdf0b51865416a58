// What the values of a stored tensor look like.
#pragma once

#include <cstdint>
#include <optional>

#include "base/thread_pool.h"
#include "io/tensor_source.h"

namespace kvasir::apps {

struct TensorStats {
  int64_t elements = 0;
  int64_t nans = 0;
  int64_t infinities = 0;
  // Of the finite values; all 0 when there are none.
  double min = 0;
  double max = 0;
  double mean = 0;

  bool clean() const { return nans == 0 && infinities == 0; }
};

/// Reads every element once and gives the pages back. Nothing for integer and boolean tensors. The same figures for
/// any number of threads.
std::optional<TensorStats> ScanTensor(const RawTensor& tensor, ThreadPool& pool);

}  // namespace kvasir::apps
