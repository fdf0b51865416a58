// What every op runs with: threads, scratch memory, counters, and the implementations in use.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/buffer.h"
#include "base/cpu.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/views.h"

namespace kvasir {

struct KernelSet;

/// Sees the input of every matrix product before it runs, as statistics of activations need it.
class MatMulObserver {
 public:
  virtual ~MatMulObserver() = default;
  /// Called by the thread that runs the step. `w` is known by its `data`.
  virtual void OnMatMul(const PackedWeight& w, MatView<const float> x) = 0;
};

/// Work done since the counters were last cleared; the glass box reads them.
struct OpCounters {
  int64_t weight_bytes = 0;  // packed weights read
  int64_t kv_bytes = 0;      // cache read and written
  int64_t matmul_flops = 0;
  int64_t attention_flops = 0;
};

/// Not thread-safe: one step at a time uses a context.
struct ExecContext {
  ThreadPool* pool = nullptr;
  Arena* scratch = nullptr;
  const KernelSet* kernels = nullptr;
  OpCounters counters;
  MatMulObserver* observer = nullptr;
  bool round_weights = false;  // MatMul of many tokens may round weights to eight bits, where that is faster
};

/// The kernel sets compiled into this program that this processor can run, best first; "ref" is always the last.
std::span<const KernelSet* const> AvailableKernelSets();

/// The set that KVASIR_ISA names, else the best. An unknown or unavailable name is an error listing the choices.
Result<const KernelSet*> SelectKernelSet();

/// "avx512bf16", "avx512", "avx2", "neon", "ref".
std::string_view KernelSetName(const KernelSet& set);

}  // namespace kvasir
