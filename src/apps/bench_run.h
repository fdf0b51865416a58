// The measurements of kvasir bench: timed runs of exactly what generation runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apps/statistics.h"
#include "base/status.h"
#include "engine/engine.h"
#include "engine/step_runner.h"
#include "kernels/ceilings.h"
#include "kernels/exec.h"
#include "kv/cache.h"
#include "model/model.h"

namespace kvasir::apps {

enum class ReportForm { kTable, kJson, kMarkdown };

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

/// What such a test runs on a model with these weights; options.context is not looked at. `chunk`: tokens of a prompt
/// run at once.
RunShape BenchShape(const BenchTest& test, EngineOptions options, int64_t chunk, const WeightNeed& weights, int threads,
                    const KernelSet& kernels);

/// Parses a name such as "tg32@b16@d1024".
Result<BenchTest> ParseBenchTest(std::string_view name);

/// Read between two steps to see what memory gives at that moment: far more than is gained from a cache's leftovers,
/// and little beside a step.
inline constexpr int64_t kBenchReadBytes = int64_t{64} << 20;

/// One run of a test, step by step, on fresh sequences of a cache, which are released at the end. All references
/// outlive it.
class BenchSteps {
 public:
  BenchSteps(const BenchTest& test, const Model& model, KvCache& cache, StepRunner& runner);
  ~BenchSteps();
  BenchSteps(const BenchSteps&) = delete;
  BenchSteps& operator=(const BenchSteps&) = delete;

  /// Makes the sequences, runs what they begin with and clears the runner's counters. Called once, first.
  Status Start();
  /// The whole prompt, or one token of every sequence. Seconds.
  Result<double> Step();

 private:
  Status Run(int64_t tokens_each, uint64_t seed);

  BenchTest test_;
  const Model& model_;
  KvCache& cache_;
  StepRunner& runner_;
  std::vector<SeqId> sequences_;
  uint64_t steps_ = 0;
};

struct BenchResult {
  BenchTest test;
  std::vector<double> tok_s;     // of every repetition
  std::vector<Ceilings> limits;  // around every repetition, or none
  OpCounters per_run;            // work of one run

  double Mean() const;
  double Median() const;
  double StandardDeviation() const;  // 0 for a single repetition
};

/// How near a result is to what the machine can do. The speed of a shared machine drifts, so every run is compared
/// with what was measured just before and after it and, where memory binds, between its steps.
struct LimitShare {
  std::string_view limit;   // "bandwidth", "int8", "bf16" or "fp32": the one that binds
  double value = 0;         // of that limit: bytes or operations per second, the median of the runs' limits
  double best = 0;          // the best ever measured in this process
  double percent = 0;       // median over the runs of the share of the run's own limit
  double percent_best = 0;  // the median run's share of `best`
  double bytes_per_token = 0;
  double flops_per_token = 0;
};
/// `best`: see LimitShare; zeros when limits were not measured, which leaves only the work per token.
LimitShare ShareOfLimit(const BenchResult& result, const Ceilings& best, DType weights);

/// The better of two measurements, limit by limit.
Ceilings Better(const Ceilings& a, const Ceilings& b);

/// One line for a report.
std::string LimitsText(const Ceilings& ceilings, int threads, const KernelSet& set);

/// Runs the test once for warming up and `repetitions` times for the record, each on fresh sequences of `cache`.
/// Token ids are arbitrary but fixed. A rate counts the whole step as generation runs it, sampling excluded. With a
/// `meter` the limits are measured before and after every repetition, and the bandwidth of a decoding run between its
/// steps, outside their time.
Result<BenchResult> RunBenchTest(const BenchTest& test, int repetitions, const Model& model, KvCache& cache,
                                 StepRunner& runner, CeilingMeter* meter);

}  // namespace kvasir::apps
