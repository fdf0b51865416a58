// Measuring loops in plain code.
#include <cstring>

#include "kernels/kernel_set.h"

namespace kvasir::ref {
namespace {

uint64_t Read(const std::byte* data, int64_t bytes, int) noexcept {
  uint64_t sums[8] = {};
  for (int64_t offset = 0; offset < bytes; offset += 64) {
    uint64_t line[8];
    std::memcpy(line, data + offset, 64);
    for (int i = 0; i < 8; ++i) sums[i] += line[i];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

int64_t Fp32(int64_t rounds, float* sink) noexcept {
  constexpr int kLanes = 32;
  float acc[kLanes];
  for (float& a : acc) a = *sink;
  const float factor = 0.5f * *sink;
  for (int64_t r = 0; r < rounds; ++r) {
    for (float& a : acc) a = a * factor + 1.0f;
  }
  float total = 0.0f;
  for (float a : acc) total += a;
  *sink = total;
  return rounds * kLanes * 2;
}

}  // namespace

constinit const ProbeKernels kProbeKernels = {
    .read = &Read, .read_patterns = 1, .fp32 = &Fp32, .bf16 = nullptr, .int8 = nullptr};

}  // namespace kvasir::ref
