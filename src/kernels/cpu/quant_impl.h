// Products of block formats over a vector type: eight-bit integers, summed by blocks. Included by the files that
// instantiate them for an instruction set; see kernel_set.h for the contract and quant_layout.h for the records.
//
// Activations are rounded to eight bits with one scale for each chunk of inputs. Every output is
//   Σ_chunks x_scale · (Σ_blocks scale · (Σ u·q - zero·Σ q) + minimum · Σ q)
// in that order: the inner sums are exact integers, the middle ones one chain of FMAs, the outer ones another.
#pragma once

#include <utility>

#include "kernels/cpu/vec_math.h"
#include "kernels/kernel_set.h"

namespace kvasir::simd {

inline constexpr int kUnitK = 32;     // inputs whose codes are in registers at once
inline constexpr int kUnitLines = 8;  // of 16 rows × 4 inputs

/// Activations of kActivationChunk inputs and a strip of T tokens, zeros beyond the last: [64][T] dwords of four int8;
/// [blocks][T] int32 that sums begin with; with minima [blocks][T] fp32 sums of the int8; [T] fp32 scales.
template <int kBlockK, bool kMinima>
struct QuantX {
  static constexpr int kBlocks = kActivationChunk / kBlockK;
  static constexpr int kBytes = kActivationChunk + 4 * kBlocks * (kMinima ? 2 : 1) + 4;  // per token
  static constexpr int kSeedsAt = kActivationChunk;
  static constexpr int kSumsAt = kSeedsAt + 4 * kBlocks;
  static constexpr int kScalesAt = kBytes - 4;
};

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
  static constexpr int kBlocksPerUnit = kUnitK / L.block_k;
  static constexpr int kUnits = L.record_k / kUnitK;
  static constexpr int kRecordsPerChunk = kActivationChunk / L.record_k;
  // Codes that need eight bits are signed where the instruction set multiplies signed bytes.
  static constexpr int kZero = L.wide() && V::kSignedBytes ? 0 : L.zero;

  /// The codes (or what they stand for) of one unit: eight lines, V::kLanes rows of each.
  [[gnu::always_inline]] static inline void Unpack(const std::byte* record, int unit, int part, U (&w)[kUnitLines]) {
    const int row = part * kVectorBytes;
    if constexpr (L.bytes) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) w[i] = V::LoadU(record + L.bytes_at() + unit * 512 + i * 64 + row);
    }
    if constexpr (L.nibbles) {
      const U mask = V::SetBytes(15);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const U v = V::LoadU(record + unit * 256 + i * 64 + row);
        w[2 * i] = V::And(v, mask);
        w[2 * i + 1] = V::And(V::template ShiftRight<4>(v), mask);
      }
    }
    if constexpr (L.pairs && !L.nibbles) {
      const U mask = V::SetBytes(3);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const U v = V::LoadU(record + L.pairs_at() + unit * 128 + i * 64 + row);
        w[4 * i] = V::And(v, mask);
        w[4 * i + 1] = V::And(V::template ShiftRight<2>(v), mask);
        w[4 * i + 2] = V::And(V::template ShiftRight<4>(v), mask);
        w[4 * i + 3] = V::And(V::template ShiftRight<6>(v), mask);
      }
    } else if constexpr (L.pairs) {
      const U mask = V::SetBytes(0x30);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const U v = V::LoadU(record + L.pairs_at() + unit * 128 + i * 64 + row);
        w[4 * i] = V::Or(w[4 * i], V::And(V::template ShiftLeft<4>(v), mask));
        w[4 * i + 1] = V::Or(w[4 * i + 1], V::And(V::template ShiftLeft<2>(v), mask));
        w[4 * i + 2] = V::Or(w[4 * i + 2], V::And(v, mask));
        w[4 * i + 3] = V::Or(w[4 * i + 3], V::And(V::template ShiftRight<2>(v), mask));
      }
    }
    if constexpr (L.bits) {
      constexpr int kBit = L.nibbles ? 4 : 2;
      const U mask = V::SetBytes(1 << kBit);
      const U v = V::LoadU(record + L.bits_at() + unit * 64 + row);
      [&]<int... kI>(std::integer_sequence<int, kI...>) {
        ((w[kI] = V::Or(w[kI], V::And(Shift<kBit - kI>(v), mask))), ...);
      }(std::make_integer_sequence<int, 8>());
    }
    if constexpr (L.table != CodeTable::kNone) {
      const U table = V::LoadTable(L.table == CodeTable::kIq4 ? kIq4Codes : kMxfp4Codes);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) w[i] = V::LookUp(table, w[i]);
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
      return V::WidenF16(at + part * V::kLanes * 2);
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
#pragma GCC unroll 2
        for (int b = 0; b < Q::kBlocksPerUnit; ++b) {
          const int block = unit * Q::kBlocksPerUnit + b;
          std::byte* const to = out + block * kBlockBytes + part * Q::kVectorBytes;
#pragma GCC unroll 8
          for (int i = 0; i < Q::kBlockLines; ++i) V::StoreU(to + i * 64, lines_of_unit[b * Q::kBlockLines + i]);
          V::StoreU(to + Q::kBlockLines * 64, V::AsU(Q::Scale(w, header, block, part)));
          if constexpr (L.minima) V::StoreU(to + Q::kBlockLines * 64 + 64, V::AsU(Q::Minimum(w, header, block, part)));
        }
      }
    }
  }
}

/// Sums of all tokens and panels that one chunk of k adds to, and their way into the tile's sums.
template <class V, int kPanels, int kTokens>
struct ChunkSums {
  using F = typename V::F;
  static constexpr int kParts = 16 / V::kLanes;
  F value[kTokens][kPanels][kParts];

  [[gnu::always_inline]] inline void Clear() {
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) value[t][p][part] = V::Zero();
      }
    }
  }
  /// Adds minimum · Σ q for each token.
  [[gnu::always_inline]] inline void AddMinima(int p, int part, F minimum, const std::byte* q_sums) {
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const F sum = V::Set1(reinterpret_cast<const float*>(q_sums)[t]);
      value[t][p][part] = V::Fma(minimum, sum, value[t][p][part]);
    }
  }
  [[gnu::always_inline]] inline void Store(float* acc) const {
    for (int t = 0; t < kTokens; ++t) {
      for (int p = 0; p < kPanels; ++p) {
        for (int part = 0; part < kParts; ++part) V::Store(At(acc, t, p, part), value[t][p][part]);
      }
    }
  }
  /// acc += value · scale.
  [[gnu::always_inline]] inline void AddTo(float* acc, const std::byte* x_scales) const {
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const F scale = V::Set1(reinterpret_cast<const float*>(x_scales)[t]);
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) {
          float* const to = At(acc, t, p, part);
          V::Store(to, V::Fma(value[t][p][part], scale, V::Load(to)));
        }
      }
    }
  }

 private:
  static float* At(float* acc, int t, int p, int part) { return acc + (p * kTokens + t) * 16 + part * V::kLanes; }
};

/// Few tokens: a unit's codes are taken apart in registers and used for every token.
template <class V, QuantLayout L, int kPanels, int kTokens>
void QuantTile(const MatMulTile& tile) noexcept {
  using Q = Quant<V, L>;
  using X = typename Q::X;
  using U = typename V::U;
  constexpr int kUnitBytes = (L.record_bytes() / Q::kUnits + 63) / 64 * 64;
  ChunkSums<V, kPanels, kTokens> sums;
  const std::byte* x = tile.x;
  const std::byte* w = tile.w;
  const int64_t panel_bytes = tile.panel_bytes;
  sums.Clear();
  if (!tile.resume) sums.Store(tile.acc);
  for (int64_t line = 0; line < tile.lines; x += X::kBytes * kTokens) {
    sums.Clear();
    const int64_t end = line + Q::kRecordsPerChunk < tile.lines ? line + Q::kRecordsPerChunk : tile.lines;
    int first_block = 0;  // of the record in its chunk
    for (; line < end; ++line, w += L.record_bytes(), first_block += L.blocks()) {
      typename Q::Header headers[kPanels][Q::kParts];
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
        for (int part = 0; part < Q::kParts; ++part) headers[p][part] = Q::LoadHeader(w + p * panel_bytes, part);
      }
      for (int unit = 0; unit < Q::kUnits; ++unit) {
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) {
          const std::byte* const record = w + p * panel_bytes;
          // The record's lines spread over its units: many at once would wait for each other.
#pragma GCC unroll 16
          for (int i = 0; i < kUnitBytes; i += 64) V::PrefetchL2(record + tile.ahead + unit * kUnitBytes + i);
#pragma GCC unroll 4
          for (int part = 0; part < Q::kParts; ++part) {
            U codes[kUnitLines];
            Q::Unpack(record, unit, part, codes);
#pragma GCC unroll 2
            for (int b = 0; b < Q::kBlocksPerUnit; ++b) {
              const int block = unit * Q::kBlocksPerUnit + b;
              const std::byte* const q = x + (first_block + block) * Q::kBlockLines * kTokens * 4;
              const std::byte* const seeds = x + (X::kSeedsAt + (first_block + block) * 4) * kTokens;
              const typename V::F scale = Q::Scale(record, headers[p][part], block, part);
#pragma GCC unroll 12
              for (int t = 0; t < kTokens; ++t) {
                U acc = V::Broadcast(seeds + t * 4);
#pragma GCC unroll 8
                for (int i = 0; i < Q::kBlockLines; ++i) {
                  acc = V::template Dot<L.wide()>(acc, codes[b * Q::kBlockLines + i],
                                                  V::Broadcast(q + (i * kTokens + t) * 4));
                }
                sums.value[t][p][part] = V::Fma(V::ToF(acc), scale, sums.value[t][p][part]);
              }
              if constexpr (L.minima) {
                sums.AddMinima(p, part, Q::Minimum(record, headers[p][part], block, part),
                               x + (X::kSumsAt + (first_block + block) * 4) * kTokens);
              }
            }
          }
        }
      }
    }
    sums.AddTo(tile.acc, x + X::kScalesAt * kTokens);
  }
}

/// Many tokens: lines are blocks of bytes (WidenRecords), and all tokens' sums of a block are in registers.
template <class V, int kBlockK, bool kMinima, bool kWideCodes, int kPanels, int kTokens>
void WideTile(const MatMulTile& tile) noexcept {
  using X = QuantX<kBlockK, kMinima>;
  using U = typename V::U;
  constexpr int kParts = 16 / V::kLanes;
  constexpr int kBlockLines = kBlockK / 4;
  ChunkSums<V, kPanels, kTokens> sums;
  const std::byte* x = tile.x;
  const std::byte* w = tile.w;
  const int64_t panel_bytes = tile.panel_bytes;
  sums.Clear();
  if (!tile.resume) sums.Store(tile.acc);
  for (int64_t line = 0; line < tile.lines; x += X::kBytes * kTokens) {
    sums.Clear();
    const int blocks = tile.lines - line < X::kBlocks ? static_cast<int>(tile.lines - line) : X::kBlocks;
    line += blocks;
    for (int block = 0; block < blocks; ++block, w += kWideBlockBytes<kBlockK, kMinima>) {
      const std::byte* const q = x + block * kBlockLines * kTokens * 4;
      const std::byte* const seeds = x + (X::kSeedsAt + block * 4) * kTokens;
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) {
        U acc[kTokens][kPanels];
#pragma GCC unroll 12
        for (int t = 0; t < kTokens; ++t) {
          const U seed = V::Broadcast(seeds + t * 4);
#pragma GCC unroll 2
          for (int p = 0; p < kPanels; ++p) acc[t][p] = seed;
        }
#pragma GCC unroll 8
        for (int i = 0; i < kBlockLines; ++i) {
          U codes[kPanels];
#pragma GCC unroll 2
          for (int p = 0; p < kPanels; ++p) codes[p] = V::LoadU(w + p * panel_bytes + i * 64 + part * V::kLanes * 4);
#pragma GCC unroll 12
          for (int t = 0; t < kTokens; ++t) {
            const U values = V::Broadcast(q + (i * kTokens + t) * 4);
#pragma GCC unroll 2
            for (int p = 0; p < kPanels; ++p) acc[t][p] = V::template Dot<kWideCodes>(acc[t][p], codes[p], values);
          }
        }
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) {
          const auto* const scales =
              reinterpret_cast<const float*>(w + p * panel_bytes + kBlockK * 16) + part * V::kLanes;
          const typename V::F scale = V::Load(scales);
#pragma GCC unroll 12
          for (int t = 0; t < kTokens; ++t) {
            sums.value[t][p][part] = V::Fma(V::ToF(acc[t][p]), scale, sums.value[t][p][part]);
          }
          if constexpr (kMinima) {
            sums.AddMinima(p, part, V::Load(scales + 16), x + (X::kSumsAt + block * 4) * kTokens);
          }
        }
      }
    }
    sums.AddTo(tile.acc, x + X::kScalesAt * kTokens);
  }
}

/// One token's chunk of n <= kActivationChunk inputs as int8, zeros behind them; returns the scale.
template <class V>
inline float QuantizeChunk(const float* x, int n, int8_t* q) {
  using F = typename V::F;
  F max = V::Zero();
  F bad = V::Zero();  // stays zero unless x holds NaN or infinity, which then reach the scale and all outputs
  const auto load = [&](int i) { return n - i >= V::kLanes ? V::Load(x + i) : V::LoadN(x + i, n - i, V::Zero()); };
  for (int i = 0; i < n; i += V::kLanes) {
    const F v = load(i);
    max = V::Max(max, V::Abs(v));
    bad = V::Fma(v, V::Zero(), bad);
  }
  float lanes[V::kLanes];
  V::Store(lanes, max);
  float largest = 0.0f;
  for (int i = 0; i < V::kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  V::Store(lanes, bad);
  float spoiled = 0.0f;
  for (int i = 0; i < V::kLanes; ++i) spoiled += lanes[i];
  constexpr float kTiny = 1e-30f;  // its inverse is finite
  const F inverse = V::Set1(largest > kTiny ? 127.0f / largest : 0.0f);
  for (int i = 0; i < kActivationChunk; i += V::kLanes) {
    V::NarrowI8(i < n ? V::Mul(load(i), inverse) : V::Zero(), q + i);
  }
  return (largest > kTiny ? largest / 127.0f : 0.0f) + spoiled;
}

template <class V, QuantLayout L>
void PackQuantX(const float* x, int64_t stride, int tokens, int64_t cols, std::byte* out) noexcept {
  using X = typename Quant<V, L>::X;
  alignas(64) int8_t q[kMaxStrip][kActivationChunk];
  for (int64_t k = 0; k < cols; k += kActivationChunk, out += X::kBytes * tokens) {
    const int n = cols - k < kActivationChunk ? static_cast<int>(cols - k) : kActivationChunk;
    auto* const scales = reinterpret_cast<float*>(out + X::kScalesAt * tokens);
    for (int t = 0; t < tokens; ++t) scales[t] = QuantizeChunk<V>(x + t * stride + k, n, q[t]);
    auto* const values = reinterpret_cast<uint32_t*>(out);
    auto* const seeds = reinterpret_cast<int32_t*>(out + X::kSeedsAt * tokens);
    auto* const sums = reinterpret_cast<float*>(out + X::kSumsAt * tokens);
    for (int t = 0; t < tokens; ++t) {
      for (int d = 0; d < kActivationChunk / 4; ++d) __builtin_memcpy(&values[d * tokens + t], q[t] + d * 4, 4);
      for (int b = 0; b < X::kBlocks; ++b) {
        int32_t sum = 0;
        for (int i = 0; i < L.block_k; ++i) sum += q[t][b * L.block_k + i];
        seeds[b * tokens + t] = -Quant<V, L>::kZero * sum;
        if constexpr (L.minima) sums[b * tokens + t] = static_cast<float>(sum);
      }
    }
  }
}

/// The kernels of wide blocks, in strips of kStrip tokens and up to kPanels panels.
template <class V, int kBlockK, bool kMinima, bool kWideCodes, int kStrip, int kPanels>
constexpr FormatKernels MakeWideKernels() {
  FormatKernels kernels;
  kernels.strip = kStrip;
  kernels.lines_per_chunk = QuantX<kBlockK, kMinima>::kBlocks;
  kernels.x_chunk_bytes = QuantX<kBlockK, kMinima>::kBytes;
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels.tile[0][kT] = &WideTile<V, kBlockK, kMinima, kWideCodes, 1, kT + 1>), ...);
    if constexpr (kPanels == 2) {
      ((kernels.tile[1][kT] = &WideTile<V, kBlockK, kMinima, kWideCodes, 2, kT + 1>), ...);
    }
  }(std::make_integer_sequence<int, kStrip>());
  return kernels;
}
template <class V, int kBlockK, bool kMinima, bool kWideCodes, int kStrip, int kPanels>
inline constexpr FormatKernels kWideKernels = MakeWideKernels<V, kBlockK, kMinima, kWideCodes, kStrip, kPanels>();

/// How many tokens and panels the tiles take: kDirect tokens from a format's own records (kPaired where two panels go
/// together), strips of kStrip tokens and kPanels panels from wide ones.
struct QuantTiles {
  int direct;
  int paired;
  int strip;
  int panels;
};

template <class V, QuantLayout L, QuantTiles kTiles>
constexpr FormatKernels MakeQuantKernels() {
  using Q = Quant<V, L>;
  FormatKernels kernels;
  kernels.strip = kTiles.direct;
  kernels.lines_per_chunk = Q::kRecordsPerChunk;
  kernels.x_chunk_bytes = Q::X::kBytes;
  kernels.pack_x = &PackQuantX<V, L>;
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels.tile[0][kT] = &QuantTile<V, L, 1, kT + 1>), ...);
  }(std::make_integer_sequence<int, kTiles.direct>());
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels.tile[1][kT] = &QuantTile<V, L, 2, kT + 1>), ...);
  }(std::make_integer_sequence<int, kTiles.paired>());
  kernels.widen = &WidenRecords<V, L>;
  kernels.wide = &kWideKernels<V, L.block_k, L.minima, L.wide(), kTiles.strip, kTiles.panels>;
  kernels.wide_lines = L.blocks();
  kernels.wide_line_bytes = kWideBlockBytes<L.block_k, L.minima>;
  kernels.widen_from = 2;
  // Measured on Zen 4: several long records, or little, as the processor's own prefetching follows the short ones.
  kernels.ahead = L.record_bytes() > 1152 ? 7168 : 1024;
  return kernels;
}

/// In the order of WeightFormat from kQ8_0 on.
#define KVASIR_QUANT_KERNELS(V, kTiles)                                                                  \
  {simd::MakeQuantKernels<V, kQ8_0Layout, kTiles>(),  simd::MakeQuantKernels<V, kQ4_0Layout, kTiles>(),  \
   simd::MakeQuantKernels<V, kQ4_1Layout, kTiles>(),  simd::MakeQuantKernels<V, kQ5_0Layout, kTiles>(),  \
   simd::MakeQuantKernels<V, kQ5_1Layout, kTiles>(),  simd::MakeQuantKernels<V, kQ2_KLayout, kTiles>(),  \
   simd::MakeQuantKernels<V, kQ3_KLayout, kTiles>(),  simd::MakeQuantKernels<V, kQ4_KLayout, kTiles>(),  \
   simd::MakeQuantKernels<V, kQ5_KLayout, kTiles>(),  simd::MakeQuantKernels<V, kQ6_KLayout, kTiles>(),  \
   simd::MakeQuantKernels<V, kIq4NlLayout, kTiles>(), simd::MakeQuantKernels<V, kIq4XsLayout, kTiles>(), \
   simd::MakeQuantKernels<V, kMxfp4Layout, kTiles>()}

}  // namespace kvasir::simd
