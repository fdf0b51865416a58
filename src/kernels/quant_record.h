// Single values in the records of block formats (quant_layout.h), in plain code.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "kernels/quant_layout.h"

namespace kvasir {

inline float LoadF16(const std::byte* p) {
  Float16 half;
  std::memcpy(&half, p, sizeof(half));
  return ToFloat(half);
}

inline float LoadF32(const std::byte* p) {
  float value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

/// What the code of input `k` of row `row` stands for, `layout.zero` included.
[[gnu::always_inline]] inline int RecordCode(const QuantLayout& layout, const std::byte* record, int64_t row,
                                             int64_t k) {
  const int64_t group = k % kUnitInputs / 4;  // of four inputs
  const std::byte* const in_line = record + layout.unit_at(static_cast<int32_t>(k / kUnitInputs)) + row * 4 + k % 4;
  const auto byte = [&](int64_t at) { return static_cast<int>(in_line[at]); };
  int code = 0;
  if (layout.bytes) code = byte(layout.bytes_at() + group * 64);
  if (layout.nibbles) code = byte(group / 2 * 64) >> (group % 2 * 4) & 15;
  if (layout.pairs) {
    const int pair = byte(layout.pairs_at() + group / 4 * 64) >> (group % 4 * 2) & 3;
    code |= layout.nibbles ? pair << 4 : pair;
  }
  if (layout.bits) {
    const int bit = byte(layout.bits_at() + group / 8 * 64) >> (group % 8) & 1;
    code |= bit << (layout.nibbles ? 4 : 2);
  }
  const uint8_t* const table = TableCodes(layout.table);
  return table != nullptr ? table[code] : code;
}

/// What a scale is multiplied with for input `k` of row `row`.
[[gnu::always_inline]] inline float RecordLevel(const QuantLayout& layout, const std::byte* record, int64_t row,
                                                int64_t k) {
  const int code = RecordCode(layout, record, row, k);
  if (layout.table == CodeTable::kE4M3) return E4M3ToFloat(static_cast<uint8_t>(code));
  if (layout.table == CodeTable::kE5M2) return E5M2ToFloat(static_cast<uint8_t>(code));
  return static_cast<float>(code - layout.zero);
}

[[gnu::always_inline]] inline float RecordScale(const QuantLayout& layout, const std::byte* record, int64_t row,
                                                int64_t block) {
  const std::byte* const at = record + layout.scales_at() + block * layout.scale_bytes();
  switch (layout.scale) {
    case ScaleKind::kF16: return layout.unit == 1.0f ? LoadF16(at + row * 2) : LoadF16(at + row * 2) * layout.unit;
    case ScaleKind::kF32: return LoadF32(at + row * 4);
    case ScaleKind::kE8M0: return std::ldexp(1.0f, static_cast<int>(at[row]) - 128);
    case ScaleKind::kSuper: break;
    case ScaleKind::kSuperNibbles:
      return LoadF16(record + layout.super_at() + row * 2) * static_cast<float>(static_cast<int>(at[row]) & 15);
  }
  return LoadF16(record + layout.super_at() + row * 2) * static_cast<float>(static_cast<int8_t>(at[row]));
}

/// What is added to scale · (code - zero); 0 for formats without minima.
[[gnu::always_inline]] inline float RecordMinimum(const QuantLayout& layout, const std::byte* record, int64_t row,
                                                  int64_t block) {
  if (!layout.minima) return 0.0f;
  const std::byte* const at = record + layout.minima_at() + block * layout.scale_bytes();
  if (layout.scale == ScaleKind::kF16) return LoadF16(at + row * 2);
  const float d = LoadF16(record + layout.super_at() + 32 + row * 2);
  if (layout.scale == ScaleKind::kSuper) return -(d * static_cast<float>(static_cast<int8_t>(at[row])));
  const auto both = static_cast<int>(record[layout.scales_at() + block * layout.scale_bytes() + row]);
  return -(d * static_cast<float>(both >> 4));
}

}  // namespace kvasir
