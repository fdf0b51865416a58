// The random numbers of sampling: the same on every machine, for any number of threads.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace kvasir {

/// xoshiro256** (Blackman & Vigna 2018, arXiv:1805.01407), seeded by splitmix64 as its authors advise.
/// Own code rather than <random>, whose distributions differ between standard libraries. Not thread-safe.
class Random {
 public:
  /// Different streams of one seed are independent sequences.
  explicit Random(uint64_t seed, uint64_t stream = 0) {
    uint64_t stream_state = stream;
    uint64_t state = seed ^ (stream == 0 ? 0 : SplitMix(stream_state));
    for (uint64_t& word : state_) word = SplitMix(state);
  }

  uint64_t Next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  /// Uniform in [0, 1), a multiple of 2^-53.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  static uint64_t SplitMix(uint64_t& state) {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  std::array<uint64_t, 4> state_;
};

}  // namespace kvasir
