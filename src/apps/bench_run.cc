#include "apps/bench_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "apps/flags.h"

namespace kvasir::apps {
namespace {

constexpr int64_t kMaxTokens = 1 << 20;
constexpr int64_t kMaxBatch = 4096;

// Tokens that differ from each other; what they are changes no speed of a dense model.
std::vector<TokenId> SomeTokens(int64_t count, int32_t vocab, uint64_t seed) {
  Random random(seed);
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.Next() % static_cast<uint64_t>(vocab));
  return tokens;
}

struct RunTime {
  double seconds = 0;
  double read_bytes_per_s = 0;  // between the steps of decoding with a meter
};

// One run with `steps` steps; the counters are cleared at its start. With a `meter` a piece of memory is read between
// the steps of decoding, which is not counted as their time: the speed of memory may change several times in a run.
Result<RunTime> TimeRun(const BenchTest& test, int64_t steps, const Model& model, KvCache& cache, StepRunner& runner,
                        CeilingMeter* meter) {
  BenchSteps run(test, model, cache, runner);
  RETURN_IF_ERROR(run.Start());
  RunTime time;
  double seconds_per_byte = 0;
  for (int64_t i = 0; i < (test.prefill ? 1 : steps); ++i) {
    ASSIGN_OR_RETURN(const double seconds, run.Step());
    time.seconds += seconds;
    if (meter != nullptr && !test.prefill) seconds_per_byte += 1 / meter->ReadSome(kBenchReadBytes);
  }
  if (seconds_per_byte > 0) time.read_bytes_per_s = static_cast<double>(steps) / seconds_per_byte;
  return time;
}

template <class Fn>
Ceilings Combine(const Ceilings& a, const Ceilings& b, const Fn& fn) {
  return {.read_bytes_per_s = fn(a.read_bytes_per_s, b.read_bytes_per_s),
          .fp32_flops = fn(a.fp32_flops, b.fp32_flops),
          .bf16_flops = fn(a.bf16_flops, b.bf16_flops),
          .int8_ops = fn(a.int8_ops, b.int8_ops)};
}

}  // namespace

BenchSteps::BenchSteps(const BenchTest& test, const Model& model, KvCache& cache, StepRunner& runner)
    : test_(test), model_(model), cache_(cache), runner_(runner) {}

BenchSteps::~BenchSteps() {
  for (const SeqId seq : sequences_) cache_.Release(seq);
}

Status BenchSteps::Start() {
  for (int64_t i = 0; i < test_.batch; ++i) {
    ASSIGN_OR_RETURN(const SeqId seq, cache_.Create());
    sequences_.push_back(seq);
  }
  if (test_.depth > 0) RETURN_IF_ERROR(Run(test_.depth, 1));
  runner_.ctx().counters = {};
  return OkStatus();
}

Result<double> BenchSteps::Step() {
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(Run(test_.prefill ? test_.tokens : 1, 2 + steps_));
  ++steps_;
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Status BenchSteps::Run(int64_t tokens_each, uint64_t seed) {
  const std::vector<TokenId> tokens = SomeTokens(tokens_each * test_.batch, model_.spec().vocab_size, seed);
  const int64_t planned = cache_.bound().Reach(test_.Length());
  std::vector<StepInput> inputs;
  inputs.reserve(sequences_.size());
  for (const SeqId seq : sequences_) {
    const auto first = static_cast<size_t>(tokens_each) * inputs.size();
    inputs.push_back({.seq = seq,
                      .tokens = std::span(tokens).subspan(first, static_cast<size_t>(tokens_each)),
                      .planned_length = planned});
  }
  const auto logits = runner_.Run(inputs);
  return logits.ok() ? OkStatus() : logits.status();
}

std::string BenchTest::Name() const {
  std::string name = fmt::format("{}{}", prefill ? "pp" : "tg", tokens);
  if (batch > 1) name += fmt::format("@b{}", batch);
  if (depth > 0) name += fmt::format("@d{}", depth);
  return name;
}

RunShape BenchShape(const BenchTest& test, EngineOptions options, int64_t chunk, const WeightNeed& weights, int threads,
                    const KernelSet& kernels) {
  options.context = test.Length();
  options.prefill_chunk = std::max(chunk, test.batch);
  options.max_sequences = test.batch;
  RunShape run = PlannedRun(options, weights, threads, kernels);
  run.full_sequences = test.batch;
  return run;
}

Result<BenchTest> ParseBenchTest(std::string_view name) {
  const auto wrong = [&] {
    return InvalidArgument("\"{}\" is no test; tests are called pp512, tg128, tg32@b16, tg64@d1024", name);
  };
  if (!name.starts_with("pp") && !name.starts_with("tg")) return wrong();
  BenchTest test{.prefill = name.starts_with("pp")};
  const auto number = [](std::string_view text, int64_t max) { return internal::ParseInt(text, 1, max); };
  std::string_view rest = name.substr(2);
  const size_t at = std::min(rest.find('@'), rest.size());
  const auto tokens = number(rest.substr(0, at), kMaxTokens);
  if (!tokens.ok()) return wrong();
  test.tokens = *tokens;
  rest.remove_prefix(at);
  while (!rest.empty()) {
    const std::string_view part = rest.substr(1, rest.find('@', 1) - 1);
    if (part.empty()) return wrong();
    const auto value = number(part.substr(1), part[0] == 'b' ? kMaxBatch : kMaxTokens);
    if (!value.ok() || (part[0] != 'b' && part[0] != 'd')) return wrong();
    (part[0] == 'b' ? test.batch : test.depth) = *value;
    rest.remove_prefix(part.size() + 1);
  }
  return test;
}

double BenchResult::Mean() const {
  return std::accumulate(tok_s.begin(), tok_s.end(), 0.0) / static_cast<double>(tok_s.size());
}

double BenchResult::Median() const { return apps::Median(tok_s); }

double BenchResult::StandardDeviation() const {
  if (tok_s.size() < 2) return 0;
  const double mean = Mean();
  double squares = 0;
  for (double x : tok_s) squares += (x - mean) * (x - mean);
  return std::sqrt(squares / static_cast<double>(tok_s.size() - 1));
}

LimitShare ShareOfLimit(const BenchResult& result, const Ceilings& best, DType weights) {
  const auto tokens = static_cast<double>(result.test.TokensPerRun());
  LimitShare share;
  share.bytes_per_token = static_cast<double>(result.per_run.weight_bytes + result.per_run.kv_bytes) / tokens;
  share.flops_per_token = static_cast<double>(result.per_run.matmul_flops + result.per_run.attention_flops) / tokens;
  if (best.read_bytes_per_s <= 0) return share;
  // fp16 weights are widened and multiplied in fp32; block types in eight-bit integers where there are such products.
  const bool int8 = DTypeBlockSize(weights) > 1 && best.int8_ops > 0;
  const bool bf16 = weights == DType::kBF16;
  const auto peak = [&](const Ceilings& c) { return int8 ? c.int8_ops : bf16 ? c.bf16_flops : c.fp32_flops; };
  const bool by_reading = share.bytes_per_token / best.read_bytes_per_s >= share.flops_per_token / peak(best);
  const double work = by_reading ? share.bytes_per_token : share.flops_per_token;
  const auto limit = [&](const Ceilings& c) { return by_reading ? c.read_bytes_per_s : peak(c); };
  share.limit = by_reading ? "bandwidth" : int8 ? "int8" : bf16 ? "bf16" : "fp32";
  share.best = limit(best);
  share.percent_best = 100 * result.Median() * work / share.best;
  std::vector<double> limits;
  std::vector<double> shares;
  for (size_t i = 0; i < result.limits.size(); ++i) {
    limits.push_back(limit(result.limits[i]));
    shares.push_back(100 * result.tok_s[i] * work / limits.back());
  }
  share.value = Median(limits);
  share.percent = Median(shares);
  return share;
}

Ceilings Better(const Ceilings& a, const Ceilings& b) {
  return Combine(a, b, [](double x, double y) { return std::max(x, y); });
}

std::string LimitsText(const Ceilings& ceilings, int threads, const KernelSet& set) {
  return fmt::format(
      "best limits with {} threads ({}): reading {:.1f} GB/s, fp32 {:.0f} GFLOP/s, bf16 {:.0f} GFLOP/s, int8 {:.0f} "
      "GOP/s\n",
      threads, KernelSetName(set), ceilings.read_bytes_per_s / 1e9, ceilings.fp32_flops / 1e9,
      ceilings.bf16_flops / 1e9, ceilings.int8_ops / 1e9);
}

Result<BenchResult> RunBenchTest(const BenchTest& test, int repetitions, const Model& model, KvCache& cache,
                                 StepRunner& runner, CeilingMeter* meter) {
  constexpr int64_t kWarmupSteps = 4;
  const auto warm = TimeRun(test, std::min(test.tokens, kWarmupSteps), model, cache, runner, nullptr);
  if (!warm.ok()) return warm.status().WithContext(test.Name());
  BenchResult result{.test = test, .tok_s = {}, .limits = {}, .per_run = {}};
  Ceilings before = meter ? meter->Now() : Ceilings{};
  for (int i = 0; i < repetitions; ++i) {
    const auto time = TimeRun(test, test.tokens, model, cache, runner, meter);
    if (!time.ok()) return time.status().WithContext(test.Name());
    result.tok_s.push_back(static_cast<double>(test.TokensPerRun()) / time->seconds);
    result.per_run = runner.ctx().counters;
    if (meter == nullptr) continue;
    const Ceilings after = meter->Now();
    result.limits.push_back(Combine(before, after, [](double x, double y) { return (x + y) / 2; }));
    if (time->read_bytes_per_s > 0) result.limits.back().read_bytes_per_s = time->read_bytes_per_s;
    before = after;
  }
  return result;
}

}  // namespace kvasir::apps
