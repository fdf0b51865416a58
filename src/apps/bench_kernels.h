// kvasir bench --kernels: every matrix kernel by itself, against the limits measured around it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/bench_run.h"
#include "base/status.h"

namespace kvasir::apps {

struct KernelBenchOptions {
  std::string formats;                            // names such as "q4_0,bf16"; empty: all
  std::vector<int64_t> tokens = {1, 4, 16, 512};  // of each product
  int threads = 0;                                // 0: all processors this process may use
  int32_t repetitions = 5;
  bool round_weights = true;  // ExecContext's
  ReportForm form = ReportForm::kTable;
};

/// Times MatMul on made-up weights (few tokens: far more than the caches hold), each run between two measurements of
/// the limits, and prints the medians.
Status RunKernelBench(const KernelBenchOptions& options);

}  // namespace kvasir::apps
