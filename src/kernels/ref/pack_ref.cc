// Packing in plain code.
#include <cstring>

#include "base/dtype.h"
#include "kernels/kernel_set.h"

namespace kvasir::ref {
namespace {

uint16_t Bits(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

void Interleave(const std::byte* const rows[16], int64_t dwords, std::byte* out) noexcept {
  for (int64_t d = 0; d < dwords; ++d) {
    for (int64_t r = 0; r < 16; ++r) std::memcpy(out + d * 64 + r * 4, rows[r] + d * 4, 4);
  }
}

void F16ToF32(const std::byte* in, int64_t n, float* out) noexcept {
  for (int64_t i = 0; i < n; ++i) out[i] = ToFloat(Float16{Bits(in + 2 * i)});
}

void BF16ToF32(const std::byte* in, int64_t n, float* out) noexcept {
  for (int64_t i = 0; i < n; ++i) out[i] = ToFloat(BFloat16{Bits(in + 2 * i)});
}

void F32ToF16(const float* in, int64_t n, uint16_t* out) noexcept {
  for (int64_t i = 0; i < n; ++i) out[i] = ToFloat16(in[i]).bits;
}

void F32ToBF16(const float* in, int64_t n, uint16_t* out) noexcept {
  for (int64_t i = 0; i < n; ++i) out[i] = ToBFloat16(in[i]).bits;
}

void Q8ToF32(const std::byte* in, int64_t blocks, float* out) noexcept {
  for (int64_t b = 0; b < blocks; ++b, in += 34, out += 32) {
    const float scale = ToFloat(Float16{Bits(in)});
    for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(in[2 + j])) * scale;
  }
}

void Q4ToF32(const std::byte* in, int64_t blocks, float* out) noexcept {
  for (int64_t b = 0; b < blocks; ++b, in += 18, out += 32) {
    const float scale = ToFloat(Float16{Bits(in)});
    for (int j = 0; j < 16; ++j) {
      const int pair = static_cast<int>(in[2 + j]);
      out[j] = static_cast<float>((pair & 15) - 8) * scale;
      out[j + 16] = static_cast<float>((pair >> 4) - 8) * scale;
    }
  }
}

}  // namespace

constinit const PackKernels kPackKernels = {.interleave = &Interleave,
                                            .f16_to_f32 = &F16ToF32,
                                            .bf16_to_f32 = &BF16ToF32,
                                            .f32_to_f16 = &F32ToF16,
                                            .f32_to_bf16 = &F32ToBF16,
                                            .q8_0_to_f32 = &Q8ToF32,
                                            .q4_0_to_f32 = &Q4ToF32};

}  // namespace kvasir::ref
