// Conversions and transposition for packing, over a vector type; see kernel_set.h for the contract.
#pragma once

#include "kernels/kernel_set.h"

namespace kvasir::simd {

template <class V>
void Interleave(const std::byte* const rows[16], int64_t dwords, std::byte* out) noexcept {
  for (int64_t d = 0; d < dwords; d += V::kLanes) {
    const int count = dwords - d < V::kLanes ? static_cast<int>(dwords - d) : V::kLanes;
    for (int part = 0; part < 16; part += V::kLanes) {
      typename V::U block[V::kLanes];
      for (int r = 0; r < V::kLanes; ++r) {
        const std::byte* from = rows[part + r] + d * 4;
        block[r] = count == V::kLanes ? V::LoadU(from) : V::LoadUN(from, count);
      }
      V::Transpose(block);
      for (int i = 0; i < count; ++i) V::StoreU(out + (d + i) * 64 + part * 4, block[i]);
    }
  }
}

/// Runs fn(in, out) on kLanes elements at a time, the last few by way of a buffer.
template <class V, int kInBytes, int kOutBytes, class Fn>
inline void Convert(const void* in, int64_t n, void* out, const Fn& fn) {
  const std::byte* from = static_cast<const std::byte*>(in);
  std::byte* to = static_cast<std::byte*>(out);
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) fn(from + i * kInBytes, to + i * kOutBytes);
  if (i < n) {
    alignas(64) std::byte tail_in[V::kLanes * kInBytes] = {};
    alignas(64) std::byte tail_out[V::kLanes * kOutBytes];
    __builtin_memcpy(tail_in, from + i * kInBytes, static_cast<size_t>(n - i) * kInBytes);
    fn(tail_in, tail_out);
    __builtin_memcpy(to + i * kOutBytes, tail_out, static_cast<size_t>(n - i) * kOutBytes);
  }
}

template <class V>
void F16ToF32(const std::byte* in, int64_t n, float* out) noexcept {
  Convert<V, 2, 4>(in, n, out, [](const std::byte* from, std::byte* to) { V::StoreU(to, V::AsU(V::WidenF16(from))); });
}

template <class V>
void BF16ToF32(const std::byte* in, int64_t n, float* out) noexcept {
  Convert<V, 2, 4>(in, n, out, [](const std::byte* from, std::byte* to) { V::StoreU(to, V::AsU(V::WidenBf16(from))); });
}

template <class V>
void F32ToF16(const float* in, int64_t n, uint16_t* out) noexcept {
  Convert<V, 4, 2>(in, n, out, [](const std::byte* from, std::byte* to) { V::NarrowF16(V::AsF(V::LoadU(from)), to); });
}

template <class V>
void F32ToBF16(const float* in, int64_t n, uint16_t* out) noexcept {
  Convert<V, 4, 2>(in, n, out, [](const std::byte* from, std::byte* to) { V::NarrowBf16(V::AsF(V::LoadU(from)), to); });
}

/// Blocks of an fp16 scale and `kBytes` bytes of quants, which `unpack` turns into 32 signed bytes.
template <class V, int kBytes, class Unpack>
inline void Dequantize(const std::byte* in, int64_t blocks, float* out, const Unpack& unpack) {
  for (int64_t b = 0; b < blocks; b += V::kLanes) {
    const int count = blocks - b < V::kLanes ? static_cast<int>(blocks - b) : V::kLanes;
    alignas(64) uint16_t bits[V::kLanes] = {};
    for (int i = 0; i < count; ++i) __builtin_memcpy(&bits[i], in + (b + i) * (kBytes + 2), 2);
    alignas(64) float scales[V::kLanes];
    V::Store(scales, V::WidenF16(bits));
    for (int i = 0; i < count; ++i) {
      alignas(64) int8_t quants[32];
      unpack(in + (b + i) * (kBytes + 2) + 2, quants);
      const typename V::F scale = V::Set1(scales[i]);
      for (int j = 0; j < 32; j += V::kLanes) {
        V::Store(out + (b + i) * 32 + j, V::Mul(V::WidenI8(quants + j), scale));
      }
    }
  }
}

template <class V>
void Q8ToF32(const std::byte* in, int64_t blocks, float* out) noexcept {
  Dequantize<V, 32>(in, blocks, out, [](const std::byte* from, int8_t* to) { __builtin_memcpy(to, from, 32); });
}

template <class V>
void Q4ToF32(const std::byte* in, int64_t blocks, float* out) noexcept {
  Dequantize<V, 16>(in, blocks, out, [](const std::byte* from, int8_t* to) { V::UnpackNibbles(from, to); });
}

template <class V>
constexpr PackKernels MakePackKernels() {
  return {.interleave = &Interleave<V>,
          .f16_to_f32 = &F16ToF32<V>,
          .bf16_to_f32 = &BF16ToF32<V>,
          .f32_to_f16 = &F32ToF16<V>,
          .f32_to_bf16 = &F32ToBF16<V>,
          .q8_0_to_f32 = &Q8ToF32<V>,
          .q4_0_to_f32 = &Q4ToF32<V>};
}

}  // namespace kvasir::simd
