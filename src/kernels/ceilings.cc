#include "kernels/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "base/limits.h"
#include "kernels/kernel_set.h"
#include "kernels/parallel.h"

namespace kvasir {
namespace {

// What a thread reads at once; those that are ahead take over from the others, as in products.
constexpr int64_t kPieceBytes = 512 << 10;

// Read by every pattern in turn to find the fastest, since the machine's speed may change meanwhile.
constexpr int64_t kSomeBytes = 32 << 20;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Keeps the compiler from dropping a result.
std::atomic<uint64_t> kept{0};

/// Calls `once`, which does `amount` units of work and returns its seconds, for at least two calls and `seconds`:
/// units per second of the best call, or of all together.
template <class Fn>
double Rate(double seconds, double amount, bool best, const Fn& once) {
  double least = 1e30;
  double total = 0.0;
  int calls = 0;
  for (; calls < 2 || total < seconds; ++calls) {
    const double taken = once();
    least = std::min(least, taken);
    total += taken;
  }
  return best ? amount / least : amount * calls / total;
}

}  // namespace

Result<CeilingMeter> CeilingMeter::Create(ThreadPool& pool, const KernelSet& set, const CeilingOptions& options) {
  constexpr int64_t kLeastBuffer = int64_t{1} << 30;
  int64_t bytes = options.buffer_bytes;
  // A small machine gives what it has.
  if (bytes <= 0) bytes = std::min(std::max(kLeastBuffer, 8 * LastLevelCacheBytes()), AvailableMemory() / 4);
  const int64_t part = RoundUp(std::max<int64_t>(bytes, 1) / pool.size() + 1, 4096);
  ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(part * pool.size(), MemoryOwner::kOther));
  std::byte* const data = buffer.data();
  // Written by the thread that will read it: pages never written are all the same page of zeros.
  pool.Run([&](int worker) { std::memset(data + worker * part, worker + 1, static_cast<size_t>(part)); });
  return CeilingMeter(pool, set, options, std::move(buffer), part);
}

double CeilingMeter::Read(int64_t offset, int64_t bytes, int pattern) {
  const std::byte* const data = buffer_.data() + offset;
  const int64_t pieces = CeilDiv(bytes, kPieceBytes);  // of each part
  const auto start = Clock::now();
  ForItems(*pool_, pieces * pool_->size(), [&](int64_t item, int) {
    const int64_t begin = item % pieces * kPieceBytes;
    const int64_t n = std::min(kPieceBytes, bytes - begin);
    kept.fetch_add(set_->probes->read(data + item / pieces * part_ + begin, n, pattern), std::memory_order_relaxed);
  });
  return SecondsSince(start);
}

double CeilingMeter::PeakRate(int64_t (*probe)(int64_t, float*) noexcept, int64_t* rounds, bool best) {
  if (probe == nullptr) return 0.0;
  const auto run = [&](int64_t n) {
    float sink = 1.0f;
    const int64_t operations = probe(n, &sink);
    kept.fetch_add(static_cast<uint64_t>(sink != 0.0f), std::memory_order_relaxed);
    return operations;
  };
  // As many rounds as take about five milliseconds: shorter than a time slice, longer than the start of the threads.
  if (*rounds == 0) {
    *rounds = 1024;
    double taken = 0.0;
    while (taken < 0.005) {
      *rounds *= 2;
      const auto start = Clock::now();
      run(*rounds);
      taken = SecondsSince(start);
    }
  }
  const double operations = static_cast<double>(run(*rounds)) * pool_->size();
  return Rate(best ? options_.seconds_each : options_.seconds_again, operations, best, [&] {
    const auto start = Clock::now();
    pool_->Run([&](int) { run(*rounds); });
    return SecondsSince(start);
  });
}

void CeilingMeter::FindPattern() {
  constexpr int kRounds = 9;
  const int patterns = set_->probes->read_patterns;
  std::vector<std::vector<double>> rates(static_cast<size_t>(patterns));
  for (int round = 0; round < kRounds; ++round) {
    for (pattern_ = 0; pattern_ < patterns; ++pattern_) {
      rates[static_cast<size_t>(pattern_)].push_back(ReadSome(kSomeBytes));
    }
  }
  const auto median = [](std::vector<double>& of_pattern) {
    std::ranges::nth_element(of_pattern, of_pattern.begin() + kRounds / 2);
    return of_pattern[kRounds / 2];
  };
  pattern_ = static_cast<int>(std::ranges::max_element(rates, {}, median) - rates.begin());
}

Ceilings CeilingMeter::Measure(bool best) {
  const ProbeKernels& probes = *set_->probes;
  const auto bytes = static_cast<double>(buffer_.size());
  Ceilings ceilings;
  if (pattern_ < 0) FindPattern();
  ceilings.read_bytes_per_s = Rate(best ? options_.seconds_each : options_.seconds_again, bytes, best,
                                   [&] { return Read(0, part_, pattern_); });
  ceilings.fp32_flops = PeakRate(probes.fp32, &rounds_[0], best);
  ceilings.bf16_flops = probes.bf16 ? PeakRate(probes.bf16, &rounds_[1], best) : ceilings.fp32_flops;
  ceilings.int8_ops = PeakRate(probes.int8, &rounds_[2], best);
  return ceilings;
}

double CeilingMeter::ReadSome(int64_t bytes) {
  if (pattern_ < 0) FindPattern();
  const int64_t each = std::clamp<int64_t>(bytes / pool_->size() / 4096 * 4096, 4096, part_);
  if (at_ + each > part_) at_ = 0;
  const double seconds = Read(at_, each, pattern_);
  at_ += each;
  return static_cast<double>(each * pool_->size()) / seconds;
}

Ceilings CeilingMeter::Best() { return Measure(true); }

Ceilings CeilingMeter::Now() { return Measure(false); }

}  // namespace kvasir
