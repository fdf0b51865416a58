#include "kernels/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/buffer.h"
#include "base/checked.h"
#include "kernels/kernel_set.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Keeps the compiler from dropping a result.
std::atomic<uint64_t> kept{0};

/// The best rate of `once`, which does `amount` units of work per call, over at least two calls and `seconds`.
template <class Fn>
double BestRate(double seconds, double amount, const Fn& once) {
  double best = 0.0;
  const auto begin = Clock::now();
  for (int i = 0; i < 2 || SecondsSince(begin) < seconds; ++i) {
    const auto start = Clock::now();
    once();
    best = std::max(best, amount / SecondsSince(start));
  }
  return best;
}

Result<double> ReadRate(ThreadPool& pool, const ProbeKernels& probes, const CeilingOptions& options) {
  const int64_t part = RoundUp(std::max<int64_t>(options.buffer_bytes, 1) / pool.size() + 1, 4096);
  ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(part * pool.size(), MemoryOwner::kOther));
  std::byte* const data = buffer.data();
  // Written by the thread that will read it: pages never written are all the same page of zeros.
  pool.Run([&](int worker) { std::memset(data + worker * part, worker + 1, static_cast<size_t>(part)); });
  double best = 0.0;
  for (int pattern = 0; pattern < probes.read_patterns; ++pattern) {
    const double rate = BestRate(options.seconds_each / probes.read_patterns, static_cast<double>(buffer.size()), [&] {
      pool.Run([&](int worker) {
        kept.fetch_add(probes.read(data + worker * part, part, pattern), std::memory_order_relaxed);
      });
    });
    best = std::max(best, rate);
  }
  return best;
}

double PeakRate(ThreadPool& pool, int64_t (*probe)(int64_t, float*) noexcept, double seconds) {
  if (probe == nullptr) return 0.0;
  const auto run = [&](int64_t rounds) {
    float sink = 1.0f;
    const int64_t operations = probe(rounds, &sink);
    kept.fetch_add(static_cast<uint64_t>(sink != 0.0f), std::memory_order_relaxed);
    return operations;
  };
  // As many rounds as take about five milliseconds: shorter than a time slice, longer than the start of the threads.
  int64_t rounds = 1024;
  double taken = 0.0;
  while (taken < 0.005) {
    rounds *= 2;
    const auto start = Clock::now();
    run(rounds);
    taken = SecondsSince(start);
  }
  const double operations = static_cast<double>(run(rounds)) * pool.size();
  return BestRate(seconds, operations, [&] { pool.Run([&](int) { run(rounds); }); });
}

}  // namespace

Result<Ceilings> MeasureCeilings(ThreadPool& pool, const KernelSet& set, const CeilingOptions& options) {
  const ProbeKernels& probes = *set.probes;
  Ceilings ceilings;
  ASSIGN_OR_RETURN(ceilings.read_bytes_per_s, ReadRate(pool, probes, options));
  ceilings.fp32_flops = PeakRate(pool, probes.fp32, options.seconds_each);
  ceilings.bf16_flops = probes.bf16 ? PeakRate(pool, probes.bf16, options.seconds_each) : ceilings.fp32_flops;
  ceilings.int8_ops = PeakRate(pool, probes.int8, options.seconds_each);
  return ceilings;
}

}  // namespace kvasir
