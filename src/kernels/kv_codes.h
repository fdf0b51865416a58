// How keys and values become the codes of i8 and i4 caches, and where those stand in a tile (KvView has the layout).
// i8: x ≈ scale · code, code in [-127, 127], one scale per token and head. i4: x ≈ minimum + scale · code, code in
// [0, 15], per 32 channels.
//
// Scales and minima are bf16: half the bytes of fp32 and, unlike fp16, its range, so that no value overflows. They are
// rounded outwards (scales up, minima down), which costs at most 2^-7 of the step and keeps every value within half a
// step. Steps below 2^-100 are 0, and magnitudes above 2^100 saturate, so that kernels can multiply without
// overflow. A token with an infinite value or a NaN gets NaN scales: it is NaN to those who see it, and nobody else.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/views.h"

namespace kvasir {

constexpr bool HasCodes(KvType type) { return type == KvType::kI8 || type == KvType::kI4; }

/// What turns codes back into values, as bf16 bits; `low` is 0 for i8.
struct KvScale {
  uint16_t scale = 0;
  uint16_t low = 0;
};

/// Groups of channels with a scale of their own.
constexpr int64_t KvGroups(KvType type, int64_t d) { return type == KvType::kI4 ? (d + kKvGroup - 1) / kKvGroup : 1; }

constexpr int64_t KvGroupOf(KvType type, int64_t channel) { return type == KvType::kI4 ? channel / kKvGroup : 0; }

/// Codes of one head of one token: x[d] → codes[d] (signed bytes for i8) and scales[KvGroups]. REQUIRES: kI8 or kI4.
void QuantizeKv(KvType type, const float* x, int64_t d, uint8_t* codes, KvScale* scales);

/// Where a code stands in its tile.
struct KvCodePlace {
  int64_t byte;
  int shift;  // 0, or 4 in the upper half
};
KvCodePlace KeyCodePlace(KvType type, int64_t slot, int64_t channel);
KvCodePlace ValueCodePlace(KvType type, int64_t d, int64_t slot, int64_t channel);

/// Byte offset of the scale, then for i4 the minimum, of a slot's group.
int64_t KeyScaleOffset(KvType type, int64_t d, int64_t slot, int64_t group);
int64_t ValueScaleOffset(KvType type, int64_t d, int64_t slot, int64_t group);

/// The code at a place, sign-extended for i8.
int32_t LoadCode(KvType type, const std::byte* tile, KvCodePlace place);
/// Changes the bits of one code only.
void StoreCode(KvType type, std::byte* tile, KvCodePlace place, uint8_t code);

KvScale LoadKvScale(KvType type, const std::byte* p);
void StoreKvScale(KvType type, std::byte* p, KvScale scale);

}  // namespace kvasir
