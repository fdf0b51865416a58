// What this machine can do at most, measured: the denominators of every "percent of limit".
#pragma once

#include <cstdint>

#include "base/buffer.h"
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
  int64_t buffer_bytes = 0;    // read for the bandwidth; 0: eight times the last-level cache, 1 GiB at least
  double seconds_each = 0.3;   // spent on each limit by Best
  double seconds_again = 0.1;  // spent on each limit by Now
};

/// Measures with a pool's threads and a kernel set's instructions; holds the memory that is read. Not thread-safe;
/// the pool must be idle during a call and outlive the meter.
class CeilingMeter {
 public:
  /// ResourceExhausted when the buffer cannot be allocated.
  static Result<CeilingMeter> Create(ThreadPool& pool, const KernelSet& set, const CeilingOptions& options = {});

  /// Every limit is the best of many short runs (for reading, by the fastest of several access patterns), so that a
  /// busy neighbour lowers it as little as possible: what the hardware can do.
  Ceilings Best();

  /// The mean rates over `seconds_again` each: what the machine gives at this moment, to be compared with work done
  /// just before or after.
  Ceilings Now();

  /// The rate of reading the next `bytes` of the memory held, all threads together: bytes per second. Small reads
  /// between small pieces of work meet the same machine as the work, however often a neighbour changes its speed.
  double ReadSome(int64_t bytes);

 private:
  CeilingMeter(ThreadPool& pool, const KernelSet& set, const CeilingOptions& options, Buffer buffer, int64_t part)
      : pool_(&pool), set_(&set), options_(options), buffer_(std::move(buffer)), part_(part) {}

  double Read(int64_t offset, int64_t bytes, int pattern);  // of each thread's part; seconds
  void FindPattern();
  double PeakRate(int64_t (*probe)(int64_t, float*) noexcept, int64_t* rounds, bool best);
  Ceilings Measure(bool best);

  ThreadPool* pool_;
  const KernelSet* set_;
  CeilingOptions options_;
  Buffer buffer_;
  int64_t part_ = 0;     // bytes per thread
  int64_t at_ = 0;       // where ReadSome goes on in each part
  int pattern_ = -1;     // the fastest one, once known
  int64_t rounds_[3]{};  // of each peak that take about five milliseconds, once known
};

}  // namespace kvasir
