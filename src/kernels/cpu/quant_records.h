// Records of block formats (quant_layout.h) taken apart: their codes, scales and minima, as they are, widened to bytes,
// or rounded to bytes with one scale for many. Included by quant_impl.h.
#pragma once

#include <utility>

#include "kernels/cpu/quant_x.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/quant_layout.h"

namespace kvasir::simd {

inline constexpr int kUnitK = kUnitInputs;  // whose codes are in registers at once
inline constexpr int kUnitLines = 8;        // of 16 rows × 4 inputs

/// A block of a wide record: its lines as bytes, its scales and minima as fp32.
template <int kBlockK, bool kMinima>
inline constexpr int kWideBlockBytes = kBlockK * 16 + (kMinima ? 128 : 64);

/// A block format over V.
template <class V, QuantLayout L>
struct Quant {
  using F = typename V::F;
  using U = typename V::U;
  using X = QuantX<L.block_k, L.minima>;
  static constexpr int kParts = 16 / V::kLanes;
  static constexpr int kVectorBytes = V::kLanes * 4;
  static constexpr int kBlockLines = L.lines_per_block();
  static constexpr int kUnits = L.record_k / kUnitK;
  // Blocks are parts of units, or made of several.
  static constexpr int kBlocksPerUnit = L.block_k < kUnitK ? kUnitK / L.block_k : 1;
  static constexpr int kUnitsPerBlock = L.block_k < kUnitK ? 1 : L.block_k / kUnitK;
  static constexpr int kRecordsPerChunk = kActivationChunk / L.record_k;
  // Codes that need eight bits are taken less 128 where the instruction set multiplies signed bytes.
  static constexpr int kZero = L.wide() && V::kSignedBytes ? L.zero - 128 : L.zero;

  /// The codes (or what they stand for) of one unit: eight lines, V::kLanes rows of each.
  [[gnu::always_inline]] static inline void Unpack(const std::byte* record, int unit, int part, U (&w)[kUnitLines]) {
    const std::byte* const at = record + L.unit_at(unit) + part * kVectorBytes;
    if constexpr (L.bytes) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) w[i] = V::LoadU(at + L.bytes_at() + i * 64);
    }
    if constexpr (L.nibbles) {
      const U mask = V::SetBytes(15);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const U v = V::LoadOnce(at + i * 64);
        w[2 * i] = V::And(v, mask);
        w[2 * i + 1] = V::And(V::template ShiftRight<4>(v), mask);
      }
    }
    if constexpr (L.pairs && !L.nibbles) {
      const U mask = V::SetBytes(3);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const U v = V::LoadU(at + L.pairs_at() + i * 64);
        w[4 * i] = V::And(v, mask);
        w[4 * i + 1] = V::And(V::template ShiftRight<2>(v), mask);
        w[4 * i + 2] = V::And(V::template ShiftRight<4>(v), mask);
        w[4 * i + 3] = V::And(V::template ShiftRight<6>(v), mask);
      }
    } else if constexpr (L.pairs) {
      const U mask = V::SetBytes(0x30);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const U v = V::LoadU(at + L.pairs_at() + i * 64);
        w[4 * i] = V::Or(w[4 * i], V::And(V::template ShiftLeft<4>(v), mask));
        w[4 * i + 1] = V::Or(w[4 * i + 1], V::And(V::template ShiftLeft<2>(v), mask));
        w[4 * i + 2] = V::Or(w[4 * i + 2], V::And(v, mask));
        w[4 * i + 3] = V::Or(w[4 * i + 3], V::And(V::template ShiftRight<2>(v), mask));
      }
    }
    if constexpr (L.bits) {
      constexpr int kBit = L.nibbles ? 4 : 2;
      const U mask = V::SetBytes(1 << kBit);
      const U v = V::LoadU(at + L.bits_at());
      [&]<int... kI>(std::integer_sequence<int, kI...>) {
        ((w[kI] = V::Or(w[kI], V::And(Shift<kBit - kI>(v), mask))), ...);
      }(std::make_integer_sequence<int, 8>());
    }
    if constexpr (L.table != CodeTable::kNone) {
      const U table = V::LoadTable(TableCodes(L.table));
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) w[i] = V::LookUp(table, w[i]);
    }
  }

  /// Lines that Unpack takes apart at a time where it has no need of others beside them.
  static constexpr int kStepLines = L.pairs || L.bits ? kUnitLines : L.nibbles ? 2 : 1;
  /// Unpack of the kLines (kStepLines, or all of a unit) from `step * kLines` on.
  template <int kLines>
  [[gnu::always_inline]] static inline void UnpackStep(const std::byte* record, int unit, int step, int part,
                                                       U (&w)[kLines]) {
    static_assert(kLines == kStepLines || kLines == kUnitLines);
    if constexpr (kLines == kUnitLines) {
      Unpack(record, unit, part, w);
    } else if constexpr (L.nibbles) {
      const U mask = V::SetBytes(15);
      const U v = V::LoadOnce(record + L.unit_at(unit) + part * kVectorBytes + step * 64);
      w[0] = V::And(v, mask);
      w[1] = V::And(V::template ShiftRight<4>(v), mask);
      if constexpr (L.table != CodeTable::kNone) {
        const U table = V::LoadTable(TableCodes(L.table));
        w[0] = V::LookUp(table, w[0]);
        w[1] = V::LookUp(table, w[1]);
      }
    } else {
      w[0] = V::LoadU(record + L.unit_at(unit) + part * kVectorBytes + L.bytes_at() + step * 64);
    }
  }

  /// What all blocks of a record share.
  struct Header {
    F d;
    F dmin;
  };
  [[gnu::always_inline]] static inline Header LoadHeader(const std::byte* record, int part) {
    Header header{V::Zero(), V::Zero()};
    if constexpr (L.super()) header.d = V::WidenF16(record + L.super_at() + part * V::kLanes * 2);
    if constexpr (L.super() && L.minima) {
      header.dmin = V::Sub(V::Zero(), V::WidenF16(record + L.super_at() + 32 + part * V::kLanes * 2));
    }
    return header;
  }

  /// The scale of a block for V::kLanes rows.
  [[gnu::always_inline]] static inline F Scale(const std::byte* record, const Header& header, int block, int part) {
    const std::byte* const at = record + L.scales_at() + block * L.scale_bytes();
    if constexpr (L.scale == ScaleKind::kF16) {
      const F scale = V::WidenF16(at + part * V::kLanes * 2);
      return L.unit == 1.0f ? scale : V::Mul(scale, V::Set1(L.unit));
    } else if constexpr (L.scale == ScaleKind::kF32) {
      return V::Load(reinterpret_cast<const float*>(at) + part * V::kLanes);
    } else if constexpr (L.scale == ScaleKind::kE8M0) {
      const U e = V::template ShiftLeft<23>(V::WidenU8(at + part * V::kLanes));
      return V::Mul(V::AsF(V::MaxU(e, V::SetDwords(0x00400000))), V::Set1(0.5f));  // 2^-128 is subnormal
    } else {
      if constexpr (L.scale == ScaleKind::kSuper) return V::Mul(header.d, V::WidenI8(at + part * V::kLanes));
      return V::Mul(header.d, V::ToF(V::And(V::WidenU8(at + part * V::kLanes), V::SetDwords(15))));
    }
  }

  /// What is added for each unit of q.
  [[gnu::always_inline]] static inline F Minimum(const std::byte* record, const Header& header, int block, int part) {
    const std::byte* const at = record + L.minima_at() + block * L.scale_bytes();
    if constexpr (L.scale == ScaleKind::kF16) {
      return V::WidenF16(at + part * V::kLanes * 2);
    } else {
      if constexpr (L.scale == ScaleKind::kSuper) return V::Mul(header.dmin, V::WidenI8(at + part * V::kLanes));
      const std::byte* const both = record + L.scales_at() + block * L.scale_bytes();
      return V::Mul(header.dmin, V::ToF(V::template ShiftRight<4>(V::WidenU8(both + part * V::kLanes))));
    }
  }

 private:
  template <int kLeft>
  static U Shift(U v) {
    if constexpr (kLeft >= 0) return V::template ShiftLeft<kLeft>(v);
    return V::template ShiftRight<-kLeft>(v);
  }
};

template <class V, QuantLayout L>
void WidenRecords(const std::byte* w, int64_t lines, int64_t ahead, std::byte* out) noexcept {
  using Q = Quant<V, L>;
  constexpr int kBlockBytes = kWideBlockBytes<L.block_k, L.minima>;
  for (int64_t record = 0; record < lines; ++record, w += L.record_bytes(), out += L.blocks() * kBlockBytes) {
    for (int i = 0; i < L.record_bytes(); i += 64) V::PrefetchL2(w + ahead + i);
    for (int part = 0; part < Q::kParts; ++part) {
      const typename Q::Header header = Q::LoadHeader(w, part);
      for (int unit = 0; unit < Q::kUnits; ++unit) {
        typename V::U lines_of_unit[kUnitLines];
        Q::Unpack(w, unit, part, lines_of_unit);
        constexpr int kBlockUnitLines = kUnitLines / Q::kBlocksPerUnit;
#pragma GCC unroll 2
        for (int b = 0; b < Q::kBlocksPerUnit; ++b) {
          const int block = unit * Q::kBlocksPerUnit / Q::kUnitsPerBlock + b;
          const int in_block = unit % Q::kUnitsPerBlock;
          std::byte* const to = out + block * kBlockBytes + part * Q::kVectorBytes;
#pragma GCC unroll 8
          for (int i = 0; i < kBlockUnitLines; ++i) {
            V::StoreU(to + (in_block * kUnitLines + i) * 64, lines_of_unit[b * kBlockUnitLines + i]);
          }
          if (in_block > 0) continue;
          V::StoreU(to + Q::kBlockLines * 64, V::AsU(Q::Scale(w, header, block, part)));
          if constexpr (L.minima) V::StoreU(to + Q::kBlockLines * 64 + 64, V::AsU(Q::Minimum(w, header, block, part)));
        }
      }
    }
  }
}

/// Lines of blocks of kRoundedLayout instead of the format's own: its values rounded to eight bits, by
///   code = (u · a + b) / 256,  a = 256 · scale / s,  b = 256 · ((minimum - zero · scale) / s + 128) + 128,
/// in 16-bit integers, where s is the largest magnitude that the scales and minima of the 128 inputs allow, over 127.
template <class V, QuantLayout L>
void RoundRecords(const std::byte* w, int64_t lines, int64_t ahead, std::byte* out) noexcept {
  using Q = Quant<V, L>;
  using F = typename V::F;
  using U = typename V::U;
  constexpr int kBlockBytes = kWideBlockBytes<kRoundedLayout.block_k, false>;
  constexpr int kBlocks = kRoundedLayout.block_k / L.block_k;  // that become one
  constexpr int kUnitsOf = kRoundedLayout.block_k / kUnitK;
  static_assert(L.record_k % kRoundedLayout.block_k == 0 && L.block_k <= kUnitK && !L.wide());
  constexpr float kLeast = static_cast<float>(-L.zero);
  constexpr float kMost = static_cast<float>(L.codes() - 1 - L.zero);
  constexpr float kTiny = 1e-30f;  // its inverse is finite
  const U even = V::SetDwords(0x00ff00ff);
  const U odd = V::SetDwords(static_cast<int>(0xff00ff00));
  for (int64_t record = 0; record < lines; ++record, w += L.record_bytes()) {
    for (int i = 0; i < L.record_bytes(); i += 64) V::PrefetchL2(w + ahead + i);
    for (int first = 0; first < L.blocks(); first += kBlocks, out += kBlockBytes) {
      for (int part = 0; part < Q::kParts; ++part) {
        const typename Q::Header header = Q::LoadHeader(w, part);
        F scales[kBlocks];
        F least[kBlocks];  // what code 0 stands for
        F bound = V::Set1(kTiny);
        F spoiled = V::Zero();  // stays zero unless there is NaN or infinity, which then reaches the scale
#pragma GCC unroll 8
        for (int b = 0; b < kBlocks; ++b) {
          scales[b] = Q::Scale(w, header, first + b, part);
          F minimum = V::Zero();
          if constexpr (L.minima) minimum = Q::Minimum(w, header, first + b, part);
          least[b] = V::Fma(scales[b], V::Set1(kLeast), minimum);
          const F most = V::Fma(scales[b], V::Set1(kMost), minimum);
          bound = V::Max(V::Max(V::Abs(least[b]), V::Abs(most)), bound);
          spoiled = V::Fma(most, V::Zero(), spoiled);
        }
        const F inverse = V::Div(V::Set1(127.0f * 256.0f), bound);
        V::StoreU(out + kRoundedLayout.lines_per_block() * 64 + part * Q::kVectorBytes,
                  V::AsU(V::Fma(bound, V::Set1(1.0f / 127.0f), spoiled)));
        for (int unit = 0; unit < kUnitsOf; ++unit) {
          U codes[kUnitLines];
          Q::Unpack(w, first / Q::kBlocksPerUnit + unit, part, codes);
          constexpr int kLines = kUnitLines / Q::kBlocksPerUnit;
#pragma GCC unroll 2
          for (int b = 0; b < Q::kBlocksPerUnit; ++b) {
            const int block = unit * Q::kBlocksPerUnit + b;
            const U a = V::PairLow(V::ToI(V::Mul(scales[block], inverse)));
            const U bias = V::PairLow(V::ToI(V::Fma(least[block], inverse, V::Set1(128.0f * 256.0f + 128.0f))));
            std::byte* const to = out + (unit * kUnitLines + b * kLines) * 64 + part * Q::kVectorBytes;
#pragma GCC unroll 8
            for (int i = 0; i < kLines; ++i) {
              const U u = codes[b * kLines + i];
              const U low = V::Add16(V::Mul16(V::And(u, even), a), bias);
              const U high = V::Add16(V::Mul16(V::template ShiftRight16<8>(u), a), bias);
              V::StoreU(to + i * 64, V::Or(V::template ShiftRight16<8>(low), V::And(high, odd)));
            }
          }
        }
      }
    }
  }
}

}  // namespace kvasir::simd
