// The measurements of kvasir bench: timed runs of exactly what generation runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/step_runner.h"
#include "kernels/ceilings.h"
#include "kernels/exec.h"
#include "kv/cache.h"
#include "model/model.h"

namespace kvasir::apps {

/// pp512: a prompt of 512 tokens. tg32@b16: 32 steps of 16 sequences. tg64@d1024: 64 steps behind 1024 tokens.
struct BenchTest {
  bool prefill = true;
  int64_t tokens = 0;  // of the prompt, or steps
  int64_t batch = 1;   // sequences at once
  int64_t depth = 0;   // tokens in the cache before the timed part

  std::string Name() const;
  /// Tokens that one run is worth.
  int64_t TokensPerRun() const { return tokens * batch; }
  /// The longest any of its sequences gets.
  int64_t Length() const { return depth + tokens; }
};

/// Parses a name such as "tg32@b16@d1024".
Result<BenchTest> ParseBenchTest(std::string_view name);

struct BenchResult {
  BenchTest test;
  std::vector<double> tok_s;  // of every repetition
  OpCounters per_run;         // work of one run

  double Mean() const;
  double Median() const;
  double StandardDeviation() const;  // 0 for a single repetition
};

/// How near a result is to what the machine can do.
struct LimitShare {
  std::string_view limit;  // "bandwidth", "bf16" or "fp32": the one that binds
  double value = 0;        // bytes or operations per second
  double percent = 0;      // of it, by the median
  double bytes_per_token = 0;
  double flops_per_token = 0;
};
LimitShare ShareOfLimit(const BenchResult& result, const Ceilings& ceilings, DType weights);

/// The better of two measurements, limit by limit.
Ceilings Best(const Ceilings& a, const Ceilings& b);

/// Runs the test once for warming up and `repetitions` times for the record, each on fresh sequences of `cache`.
/// Token ids are arbitrary but fixed. A rate counts the whole step as generation runs it, sampling excluded.
Result<BenchResult> RunBenchTest(const BenchTest& test, int repetitions, const Model& model, KvCache& cache,
                                 StepRunner& runner);

}  // namespace kvasir::apps
