#include "kernels/kv_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/dtype.h"

namespace kvasir {
namespace {

constexpr float kLeastStep = 0x1p-100f;
constexpr float kMost = 0x1p100f;
constexpr KvScale kPoison = {0x7fc0, 0x7fc0};
constexpr int64_t kGroupBytes = kKvGroup / 4 * 32 + 64;

/// REQUIRES: finite, x >= 0; not beyond bf16's range.
uint16_t BFloat16Up(float x) { return static_cast<uint16_t>((std::bit_cast<uint32_t>(x) + 0xffffu) >> 16); }

/// Towards minus infinity. REQUIRES: |x| <= kMost.
uint16_t BFloat16Down(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits >> 31 != 0 ? bits + 0xffffu : bits) >> 16);
}

/// To the nearest even integer. REQUIRES: |x| < 2^22.
float RoundToInteger(float x) { return x + 12582912.0f - 12582912.0f; }

bool AllFinite(const float* x, int64_t n) {
  constexpr uint32_t kExponent = 0x7f800000u;
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad |= (std::bit_cast<uint32_t>(x[i]) & kExponent) == kExponent ? 1u : 0u;
  return bad == 0;
}

struct Extremes {
  float least;
  float most;
};

/// In several chains, so that comparisons need not wait for each other. REQUIRES: n >= 1, no NaN.
Extremes FindExtremes(const float* x, int64_t n) {
  constexpr int kChains = 8;
  float least[kChains];
  float most[kChains];
  std::fill(least, least + kChains, x[0]);
  std::fill(most, most + kChains, x[0]);
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains) {
    for (int j = 0; j < kChains; ++j) {
      least[j] = x[i + j] < least[j] ? x[i + j] : least[j];
      most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    }
  }
  for (; i < n; ++i) {
    least[0] = std::min(least[0], x[i]);
    most[0] = std::max(most[0], x[i]);
  }
  return {*std::min_element(least, least + kChains), *std::max_element(most, most + kChains)};
}

KvScale QuantizeI8(const float* x, int64_t n, uint8_t* codes) {
  const Extremes extremes = FindExtremes(x, n);
  const float most = std::min(std::max(std::abs(extremes.least), std::abs(extremes.most)), kMost);
  const KvScale scale = {BFloat16Up(most / 127.0f), 0};
  const float step = ToFloat(BFloat16{scale.scale});
  std::fill(codes, codes + n, uint8_t{0});
  if (step < kLeastStep) return {};
  const float inverse = 1.0f / step;
  for (int64_t i = 0; i < n; ++i) {
    const float code = RoundToInteger(std::clamp(x[i] * inverse, -127.0f, 127.0f));
    codes[i] = static_cast<uint8_t>(static_cast<int8_t>(code));
  }
  return scale;
}

KvScale QuantizeI4(const float* x, int64_t n, uint8_t* codes) {
  const auto [least, most] = FindExtremes(x, n);
  KvScale scale;
  scale.low = BFloat16Down(std::clamp(least, -kMost, kMost));
  const float low = ToFloat(BFloat16{scale.low});
  scale.scale = BFloat16Up((std::clamp(most, -kMost, kMost) - low) / 15.0f);
  const float step = ToFloat(BFloat16{scale.scale});
  std::fill(codes, codes + n, uint8_t{0});
  if (step < kLeastStep) return {0, scale.low};
  const float inverse = 1.0f / step;
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<uint8_t>(RoundToInteger(std::clamp((x[i] - low) * inverse, 0.0f, 15.0f)));
  }
  return scale;
}

/// Channels of a group (i4).
int64_t GroupSize(int64_t d, int64_t group) { return std::min(kKvGroup, d - group * kKvGroup); }

}  // namespace

void QuantizeKv(KvType type, const float* x, int64_t d, uint8_t* codes, KvScale* scales) {
  const int64_t group = type == KvType::kI4 ? kKvGroup : d;
  const bool finite = AllFinite(x, d);
  for (int64_t at = 0; at < d; at += group, ++scales) {
    const int64_t n = std::min(group, d - at);
    if (!finite) {
      std::fill(codes + at, codes + at + n, uint8_t{0});
      *scales = kPoison;
    } else {
      *scales = type == KvType::kI4 ? QuantizeI4(x + at, n, codes + at) : QuantizeI8(x + at, n, codes + at);
    }
  }
}

KvCodePlace KeyCodePlace(KvType type, int64_t slot, int64_t channel) {
  if (type == KvType::kI8) return {(channel / 2 * kTileTokens + slot) * 2 + channel % 2, 0};
  const int64_t at = channel % kKvGroup;
  return {channel / kKvGroup * kGroupBytes + (at / 4 * kTileTokens + slot) * 2 + at % 2, at % 4 < 2 ? 0 : 4};
}

KvCodePlace ValueCodePlace(KvType type, int64_t d, int64_t slot, int64_t channel) {
  if (type == KvType::kI8) return {(slot / 2 * d + channel) * 2 + slot % 2, 0};
  const int64_t at = channel % kKvGroup;
  const int64_t half = (GroupSize(d, channel / kKvGroup) + 1) / 2;
  return {channel / kKvGroup * kGroupBytes + (slot / 2 * half + at % half) * 2 + slot % 2, at < half ? 0 : 4};
}

int64_t KeyScaleOffset(KvType type, int64_t d, int64_t slot, int64_t group) {
  if (type == KvType::kI8) return (d + 1) / 2 * 32 + slot * 2;
  return group * kGroupBytes + (GroupSize(d, group) + 3) / 4 * 32 + slot * 4;
}

int64_t ValueScaleOffset(KvType type, int64_t d, int64_t slot, int64_t group) {
  if (type == KvType::kI8) return d * kTileTokens + slot * 2;
  return group * kGroupBytes + (GroupSize(d, group) + 1) / 2 * kTileTokens + slot * 4;
}

int32_t LoadCode(KvType type, const std::byte* tile, KvCodePlace place) {
  const auto byte = static_cast<uint8_t>(tile[place.byte]);
  if (type == KvType::kI8) return static_cast<int8_t>(byte);
  return byte >> place.shift & 15;
}

void StoreCode(KvType type, std::byte* tile, KvCodePlace place, uint8_t code) {
  const unsigned mask = type == KvType::kI8 ? 0xffu : 0xfu << place.shift;
  const auto old = static_cast<unsigned>(tile[place.byte]);
  tile[place.byte] = static_cast<std::byte>((old & ~mask) | unsigned{code} << place.shift);
}

KvScale LoadKvScale(KvType type, const std::byte* p) {
  KvScale scale;
  std::memcpy(&scale, p, type == KvType::kI8 ? 2 : 4);
  return scale;
}

void StoreKvScale(KvType type, std::byte* p, KvScale scale) { std::memcpy(p, &scale, type == KvType::kI8 ? 2 : 4); }

}  // namespace kvasir
