// What this machine can do at most, measured: the denominators of every "percent of limit".
#pragma once

#include <cstdint>

#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/exec.h"

namespace kvasir {

/// Limits of all of a pool's threads together. A multiplication and an addition are two operations.
struct Ceilings {
  double read_bytes_per_s = 0.0;  // streaming reads from memory
  double fp32_flops = 0.0;        // fused multiply-adds from registers, per second
  double bf16_flops = 0.0;        // bf16 products with fp32 sums; fp32_flops where there is no such instruction
  double int8_ops = 0.0;          // int8 products with int32 sums; 0 where the kernel set has none
};

struct CeilingOptions {
  int64_t buffer_bytes = int64_t{1} << 30;  // read for the bandwidth; many times the last-level cache
  double seconds_each = 0.3;                // spent on each limit
};

/// Measures with the pool's threads and the instructions of `set`. Every limit is the best of many short runs (and,
/// for reading, of several access patterns), so that a busy neighbour lowers it as little as possible.
/// ResourceExhausted when the buffer cannot be allocated.
Result<Ceilings> MeasureCeilings(ThreadPool& pool, const KernelSet& set, const CeilingOptions& options = {});

}  // namespace kvasir
