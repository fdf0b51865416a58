// Products of block formats over a vector type: eight-bit integers, summed by blocks. Included by the files that
// instantiate them for an instruction set; see kernel_set.h for the contract and quant_layout.h for the records.
//
// Activations are rounded to eight bits with one scale for each chunk of inputs (quant_x.h). Every output is
//   Σ_chunks (x_scale · (Σ_blocks scale · (Σ u·q - zero·Σ q) + minimum · Σ q) + Σ_outliers x · w)
// in that order: the inner sums are exact integers, the middle ones one chain of FMAs, the outer ones another.
#pragma once

#include <utility>

#include "kernels/cpu/float8_impl.h"
#include "kernels/cpu/quant_records.h"
#include "kernels/cpu/quant_x.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/kernel_set.h"

namespace kvasir::simd {

/// Sums of all tokens and panels that one chunk of k adds to, and their way into the tile's sums.
template <class V, int kPanels, int kTokens>
class ChunkSums {
 public:
  using F = typename V::F;

  [[gnu::always_inline]] inline void Clear() {
    ForAll([&](int t, int p, int part) { value_[t][p][part] = V::Zero(); });
  }
  /// Adds a block's integers times its scale.
  [[gnu::always_inline]] inline void Add(int t, int p, int part, typename V::U block, F scale) {
    value_[t][p][part] = V::Fma(V::ToF(block), scale, value_[t][p][part]);
  }
  /// Adds minimum · Σ q for each token.
  [[gnu::always_inline]] inline void AddMinima(int p, int part, F minimum, const std::byte* q_sums) {
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const F sum = V::Set1(reinterpret_cast<const float*>(q_sums)[t]);
      value_[t][p][part] = V::Fma(minimum, sum, value_[t][p][part]);
    }
  }
  [[gnu::always_inline]] inline void Store(float* acc) const {
    ForAll([&](int t, int p, int part) { V::Store(At(acc, t, p, part), value_[t][p][part]); });
  }
  /// acc += value · scale.
  [[gnu::always_inline]] inline void AddTo(float* acc, const std::byte* x_scales) const {
    ForAll([&](int t, int p, int part) {
      const F scale = V::Set1(reinterpret_cast<const float*>(x_scales)[t]);
      float* const to = At(acc, t, p, part);
      V::Store(to, V::Fma(value_[t][p][part], scale, V::Load(to)));
    });
  }

 private:
  static constexpr int kParts = 16 / V::kLanes;

  template <class Do>
  [[gnu::always_inline]] static inline void ForAll(const Do& what) {
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) what(t, p, part);
      }
    }
  }
  [[gnu::always_inline]] static inline float* At(float* acc, int t, int p, int part) {
    return acc + (p * kTokens + t) * 16 + part * V::kLanes;
  }

  F value_[kTokens][kPanels][kParts];
};

/// acc[row] += x · w[row] for one input, whose codes stand in lanes of `codes`, byte `k % 4` of each dword.
template <class V>
inline void AddColumn(typename V::U codes, int64_t k, float zero, typename V::F scale, const typename V::F* minimum,
                      float x, float* acc) {
  const typename V::U code = V::And(V::ShiftRightBy(codes, static_cast<int>(k % 4) * 8), V::SetDwords(255));
  typename V::F w = V::Mul(scale, V::Sub(V::ToF(code), V::Set1(zero)));
  if (minimum != nullptr) w = V::Add(w, *minimum);
  V::Store(acc, V::Fma(V::Set1(x), w, V::Load(acc)));
}

/// Adds the outliers of one chunk (QuantX) to the sums of the strip; add(k, x, p, t) does so for one panel and token.
template <int kTokens, int kPanels, class Add>
[[gnu::always_inline]] inline void AddOutliers(const std::byte* outliers, const Add& add) {
  int any = 0;
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) any |= reinterpret_cast<const Outliers*>(outliers)[t].count;
  if (any == 0) [[likely]]
    return;
  for (int t = 0; t < kTokens; ++t) {
    const Outliers& own = reinterpret_cast<const Outliers*>(outliers)[t];
    for (int i = 0; i < own.count; ++i) {
      for (int p = 0; p < kPanels; ++p) add(own.k[i], own.x[i], p, t);
    }
  }
}

/// AddColumn for input k of a record.
template <class V, QuantLayout L>
[[gnu::noinline]] void AddRecordColumn(const std::byte* record, int64_t k, float x, float* acc) {
  using Q = Quant<V, L>;
  const int unit = static_cast<int>(k / kUnitK);
  const int64_t in_unit = k % kUnitK / 4;
  for (int part = 0; part < Q::kParts; ++part) {
    typename V::U codes[kUnitLines];
    if constexpr (L.bytes) {
      codes[in_unit] = V::LoadU(record + L.unit_at(unit) + L.bytes_at() + in_unit * 64 + part * Q::kVectorBytes);
    } else {
      Q::Unpack(record, unit, part, codes);
    }
    const typename Q::Header header = Q::LoadHeader(record, part);
    const int block = static_cast<int>(k / L.block_k);
    typename V::F minimum = V::Zero();
    if constexpr (L.minima) minimum = Q::Minimum(record, header, block, part);
    AddColumn<V>(codes[in_unit], k, static_cast<float>(L.zero), Q::Scale(record, header, block, part),
                 L.minima ? &minimum : nullptr, x, acc + part * V::kLanes);
  }
}

/// AddColumn for input k of a wide block.
template <class V, int kBlockK, bool kMinima>
[[gnu::noinline]] void AddWideColumn(const std::byte* block, int64_t k, float zero, float x, float* acc) {
  for (int part = 0; part < 16 / V::kLanes; ++part) {
    const auto* const scales = reinterpret_cast<const float*>(block + kBlockK * 16) + part * V::kLanes;
    typename V::F minimum = V::Zero();
    if constexpr (kMinima) minimum = V::Load(scales + 16);
    AddColumn<V>(V::LoadU(block + k / 4 * 64 + part * V::kLanes * 4), k, zero, V::Load(scales),
                 kMinima ? &minimum : nullptr, x, acc + part * V::kLanes);
  }
}

/// Asks for the share of a record's lines that belongs to a step of a unit, one of kUnitLines: spread among the
/// products, since many at once would wait for each other.
template <class V, QuantLayout L>
[[gnu::always_inline]] inline void FetchShare(const MatMulTile& tile, const std::byte* record, int unit, int step) {
  constexpr int kLines = L.unit_bytes() / 64;
  constexpr int kHeaderLines = L.header_bytes() / 64;
  static_assert(kHeaderLines <= Quant<V, L>::kUnits && kLines <= kUnitLines);
  if (step == 0 && unit < kHeaderLines) FetchLine<V>(tile, record + unit * 64);
  const int line = step * kLines / kUnitLines;
  if ((step + 1) * kLines / kUnitLines > line) FetchLine<V>(tile, record + L.unit_at(unit) + line * 64);
}

/// Chains of additions that a block's sum is made of: a long one by itself would leave the processor waiting, where
/// those of other tokens do not fill the time. Sums are of integers, so that the result is the same.
constexpr int ChainsOf(int block_k, int tokens) {
  const int chains = block_k / (kUnitInputs * tokens);
  return chains < 1 ? 1 : chains > 4 ? 4 : chains;
}

/// What is needed after a tile, asked for a little at a time between the tile's blocks: many lines at once would wait
/// for each other, and the products for them.
template <class V, int kPanels>
class SpreadFetch {
 public:
  /// For a tile of `blocks` blocks.
  SpreadFetch(const MatMulTile& tile, int64_t blocks)
      : next_(tile.next),
        panel_bytes_(tile.next_panel_bytes),
        lines_(tile.next == nullptr ? 0 : tile.next_bytes / 64),
        per_block_(lines_ * kOne / std::max<int64_t>(blocks, 1) + 1) {}
  /// Once for each block.
  [[gnu::always_inline]] inline void Step() {
    for (due_ += per_block_; due_ >= kOne && lines_ > 0; due_ -= kOne, --lines_, next_ += 64) {
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) V::PrefetchL2(next_ + p * panel_bytes_);
    }
  }

 private:
  static constexpr int64_t kOne = 1 << 16;  // a line of each panel

  const std::byte* next_;
  int64_t panel_bytes_;
  int64_t lines_;
  int64_t per_block_;
  int64_t due_ = 0;
};

/// Few tokens: a unit's codes are taken apart in registers and used for every token. kSwept: the weights were fetched
/// before, and those of MatMulTile::next are meanwhile.
template <class V, QuantLayout L, int kPanels, int kTokens, bool kSwept>
void QuantTile(const MatMulTile& tile) noexcept {
  using Q = Quant<V, L>;
  using X = typename Q::X;
  using U = typename V::U;
  // Panels side by side share the activations, which are read for both at once.
  constexpr int kStepLines = kSwept ? Q::kStepLines : kUnitLines;
  constexpr int kSide = kStepLines < kUnitLines ? kPanels : 1;
  constexpr int kChains = ChainsOf(L.block_k, kTokens * kSide);
  ChunkSums<V, kPanels, kTokens> sums;
  const std::byte* x = tile.x;
  const std::byte* w = tile.w;
  const int64_t panel_bytes = tile.panel_bytes;
  constexpr int kSpans = Q::kUnits / Q::kUnitsPerBlock;
  SpreadFetch<V, kPanels> fetch(tile, tile.lines * kSpans);
  sums.Clear();
  if (!tile.resume) sums.Store(tile.acc);
  for (int64_t line = 0; line < tile.lines; x += X::kBytes * kTokens) {
    sums.Clear();
    const std::byte* const chunk = w;
    const int64_t end = line + Q::kRecordsPerChunk < tile.lines ? line + Q::kRecordsPerChunk : tile.lines;
    int first_block = 0;  // of the record in its chunk
    for (; line < end; ++line, w += L.record_bytes(), first_block += L.blocks()) {
      typename Q::Header headers[kPanels][Q::kParts];
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
        for (int part = 0; part < Q::kParts; ++part) headers[p][part] = Q::LoadHeader(w + p * panel_bytes, part);
      }
      for (int span = 0; span < kSpans; ++span) {
        if constexpr (kSwept) fetch.Step();
#pragma GCC unroll 2
        for (int first = 0; first < kPanels; first += kSide) {
          const std::byte* const record = w + first * panel_bytes;
#pragma GCC unroll 4
          for (int part = 0; part < Q::kParts; ++part) {
            U acc[Q::kBlocksPerUnit][kTokens][kSide][kChains];
            const int block = span * Q::kBlocksPerUnit;
            const std::byte* const q = x + (first_block + block) * Q::kBlockLines * kTokens * 4;
            const std::byte* const seeds = x + (X::kSeedsAt + (first_block + block) * 4) * kTokens;
#pragma GCC unroll 2
            for (int b = 0; b < Q::kBlocksPerUnit; ++b) {
#pragma GCC unroll 12
              for (int t = 0; t < kTokens; ++t) {
                const U seed = V::Broadcast(seeds + (b * kTokens + t) * 4);
#pragma GCC unroll 2
                for (int p = 0; p < kSide; ++p) {
                  acc[b][t][p][0] = seed;
#pragma GCC unroll 4
                  for (int c = 1; c < kChains; ++c) acc[b][t][p][c] = V::SetDwords(0);
                }
              }
            }
            for (int u = 0; u < Q::kUnitsPerBlock; ++u) {
              const int unit = span * Q::kUnitsPerBlock + u;
              constexpr int kLines = kUnitLines / Q::kBlocksPerUnit;  // of a block
#pragma GCC unroll 8
              for (int step = 0; step < kUnitLines / kStepLines; ++step) {
                U codes[kSide][kStepLines];
#pragma GCC unroll 2
                for (int p = 0; p < kSide; ++p) Q::UnpackStep(record + p * panel_bytes, unit, step, part, codes[p]);
                // Line by line: the sums of the tokens do not wait for each other.
#pragma GCC unroll 8
                for (int l = 0; l < kStepLines; ++l) {
                  const int line_of_unit = step * kStepLines + l;
                  const int b = line_of_unit / kLines;
#pragma GCC unroll 2
                  for (int p = 0; p < kSide; ++p) {
                    if (part > 0 || kSwept) continue;
                    FetchShare<V, L>(tile, record + p * panel_bytes, unit, line_of_unit);
                  }
#pragma GCC unroll 12
                  for (int t = 0; t < kTokens; ++t) {
                    const U values = V::Broadcast(q + ((u * kLines + line_of_unit) * kTokens + t) * 4);
#pragma GCC unroll 2
                    for (int p = 0; p < kSide; ++p) {
                      U& sum = acc[b][t][p][line_of_unit % kLines % kChains];
                      sum = V::template Dot<L.wide()>(sum, codes[p][l], values);
                    }
                  }
                }
              }
            }
#pragma GCC unroll 2
            for (int b = 0; b < Q::kBlocksPerUnit; ++b) {
#pragma GCC unroll 2
              for (int p = 0; p < kSide; ++p) {
                const std::byte* const own = record + p * panel_bytes;
                const typename V::F scale = Q::Scale(own, headers[first + p][part], block + b, part);
#pragma GCC unroll 12
                for (int t = 0; t < kTokens; ++t) {
                  U sum = acc[b][t][p][0];
#pragma GCC unroll 4
                  for (int c = 1; c < kChains; ++c) sum = V::AddDwords(sum, acc[b][t][p][c]);
                  sums.Add(t, first + p, part, sum, scale);
                }
                if constexpr (L.minima) {
                  sums.AddMinima(first + p, part, Q::Minimum(own, headers[first + p][part], block + b, part),
                                 x + (X::kSumsAt + (first_block + block + b) * 4) * kTokens);
                }
              }
            }
          }
        }
      }
    }
    sums.AddTo(tile.acc, x + X::kScalesAt * kTokens);
    AddOutliers<kTokens, kPanels>(x + X::kOutliersAt * kTokens, [&](int64_t k, float value, int p, int t) {
      AddRecordColumn<V, L>(chunk + p * panel_bytes + k / L.record_k * L.record_bytes(), k % L.record_k, value,
                            tile.acc + (p * kTokens + t) * 16);
    });
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
  SpreadFetch<V, kPanels> fetch(tile, tile.lines);
  sums.Clear();
  if (!tile.resume) sums.Store(tile.acc);
  for (int64_t line = 0; line < tile.lines; x += X::kBytes * kTokens) {
    sums.Clear();
    const std::byte* const chunk = w;
    const int blocks = tile.lines - line < X::kBlocks ? static_cast<int>(tile.lines - line) : X::kBlocks;
    line += blocks;
    for (int block = 0; block < blocks; ++block, w += kWideBlockBytes<kBlockK, kMinima>) {
      const std::byte* const q = x + block * kBlockLines * kTokens * 4;
      const std::byte* const seeds = x + (X::kSeedsAt + block * 4) * kTokens;
      fetch.Step();
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
          for (int t = 0; t < kTokens; ++t) sums.Add(t, p, part, acc[t][p], scale);
          if constexpr (kMinima) {
            sums.AddMinima(p, part, V::Load(scales + 16), x + (X::kSumsAt + block * 4) * kTokens);
          }
        }
      }
    }
    sums.AddTo(tile.acc, x + X::kScalesAt * kTokens);
    const std::byte* const outliers = x + X::kOutliersAt * kTokens;
    AddOutliers<kTokens, kPanels>(outliers, [&](int64_t k, float value, int p, int t) {
      AddWideColumn<V, kBlockK, kMinima>(chunk + p * panel_bytes + k / kBlockK * kWideBlockBytes<kBlockK, kMinima>,
                                         k % kBlockK, reinterpret_cast<const Outliers*>(outliers)->zero, value,
                                         tile.acc + (p * kTokens + t) * 16);
    });
  }
}

/// The kernels of wide blocks, in strips of kStrip tokens and up to kPanels panels.
template <class V, int kBlockK, bool kMinima, bool kWideCodes, int kStrip, int kPanels>
constexpr FormatKernels MakeWideKernels() {
  FormatKernels kernels;
  kernels.strip = kStrip;
  kernels.lines_per_chunk = QuantX<kBlockK, kMinima>::kBlocks;
  kernels.x_chunk_bytes = QuantX<kBlockK, kMinima>::kBytes;
  kernels.fetches_next = true;
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

/// How many tokens the tiles take: `direct` tokens from a format's own records where there is a single strip, else
/// strips of `swept` tokens; strips of `strip` tokens and `panels` panels from wide ones, which are made for widen_from
/// tokens and more.
struct QuantTiles {
  int direct;
  int swept = 0;  // 0: several strips are like a single one
  int strip;
  int panels;
  int widen_from;
  int widen_units_from = widen_from;  // the same where a unit has to be taken apart at once
  int widen_bytes_from = widen_from;  // and where codes are bytes already
  int round_from = 0;                 // 0: never
};

/// The product for many tokens with weights rounded to kRoundedLayout.
template <class V, QuantLayout L, QuantTiles kTiles>
constexpr FormatKernels MakeRoundedKernels() {
  constexpr QuantLayout kTo = kRoundedLayout;
  constexpr int kZero = V::kSignedBytes ? 0 : kTo.zero;
  FormatKernels kernels;
  kernels.strip = kTiles.strip;
  kernels.lines_per_chunk = Quant<V, L>::kRecordsPerChunk;
  kernels.x_chunk_bytes = QuantX<kTo.block_k, kTo.minima>::kBytes;
  kernels.pack_x = &PackQuantX<V, kTo, kZero>;
  kernels.widen = &RoundRecords<V, L>;
  kernels.wide = &kWideKernels<V, kTo.block_k, kTo.minima, kTo.wide(), kTiles.strip, kTiles.panels>;
  kernels.wide_lines = L.record_k / kTo.block_k;
  kernels.wide_line_bytes = kWideBlockBytes<kTo.block_k, kTo.minima>;
  kernels.widen_from = 1;
  return kernels;
}
template <class V, QuantLayout L, QuantTiles kTiles>
inline constexpr FormatKernels kRoundedKernels = MakeRoundedKernels<V, L, kTiles>();

inline constexpr int kFarAhead = 7168;

template <class V, QuantLayout L, int kDirect, int kPaired, bool kSwept>
constexpr void FillTiles(FormatKernels* kernels) {
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels->tile[0][kT] = &QuantTile<V, L, 1, kT + 1, kSwept>), ...);
  }(std::make_integer_sequence<int, kDirect>());
  [&]<int... kT>(std::integer_sequence<int, kT...>) {
    ((kernels->tile[1][kT] = &QuantTile<V, L, 2, kT + 1, kSwept>), ...);
  }(std::make_integer_sequence<int, kPaired>());
}

/// Several strips of a format's own records: two panels side by side where a step's codes leave registers for both.
template <class V, QuantLayout L, int kStrip>
constexpr FormatKernels MakeSweptKernels() {
  FormatKernels kernels;
  kernels.strip = kStrip;
  kernels.lines_per_chunk = Quant<V, L>::kRecordsPerChunk;
  kernels.x_chunk_bytes = Quant<V, L>::X::kBytes;
  kernels.fetches_next = true;
  constexpr bool kStepwise = Quant<V, L>::kStepLines < kUnitLines;
  FillTiles<V, L, kStrip, kStepwise ? kStrip : 2, true>(&kernels);
  return kernels;
}
template <class V, QuantLayout L, int kStrip>
inline constexpr FormatKernels kSweptKernels = MakeSweptKernels<V, L, kStrip>();

template <class V, QuantLayout L, QuantTiles kTiles>
constexpr FormatKernels MakeIntKernels() {
  using Q = Quant<V, L>;
  FormatKernels kernels;
  kernels.strip = kTiles.direct;
  kernels.lines_per_chunk = Q::kRecordsPerChunk;
  kernels.x_chunk_bytes = Q::X::kBytes;
  kernels.pack_x = &PackQuantX<V, L, Q::kZero>;
  FillTiles<V, L, kTiles.direct, kTiles.panels, false>(&kernels);
  if constexpr (kTiles.swept > 0) kernels.swept = &kSweptKernels<V, L, kTiles.swept>;
  kernels.widen = &WidenRecords<V, L>;
  kernels.wide = &kWideKernels<V, L.block_k, L.minima, L.wide(), kTiles.strip, kTiles.panels>;
  kernels.wide_lines = L.blocks();
  kernels.wide_line_bytes = kWideBlockBytes<L.block_k, L.minima>;
  kernels.widen_from = Q::kStepLines == 1           ? kTiles.widen_bytes_from
                       : Q::kStepLines < kUnitLines ? kTiles.widen_from
                                                    : kTiles.widen_units_from;
  kernels.round_from = kTiles.round_from;
  // Measured: Zen 4's own prefetching follows quick reading, which fetching far ahead disturbs; slow reading (of
  // several tokens, or codes that take work) gains from it.
  kernels.ahead = kFarAhead;
  if constexpr (L.rounds() && kTiles.round_from > 0) kernels.rounded = &kRoundedKernels<V, L, kTiles>;
  kernels.ahead_few = L.pairs || L.bits || L.super() || L.table != CodeTable::kNone ? kFarAhead : 512;
  return kernels;
}

template <class V, QuantLayout L, QuantTiles kTiles>
constexpr FormatKernels MakeQuantKernels() {
  if constexpr (L.float8()) {
    return MakeFloat8Kernels<V, L, kTiles.direct>();
  } else {
    return MakeIntKernels<V, L, kTiles>();
  }
}

/// In the order of WeightFormat from kQ8_0 on.
#define KVASIR_QUANT_KERNELS(V, kTiles)                                                                        \
  {simd::MakeQuantKernels<V, kQ8_0Layout, kTiles>(),     simd::MakeQuantKernels<V, kQ4_0Layout, kTiles>(),     \
   simd::MakeQuantKernels<V, kQ4_1Layout, kTiles>(),     simd::MakeQuantKernels<V, kQ5_0Layout, kTiles>(),     \
   simd::MakeQuantKernels<V, kQ5_1Layout, kTiles>(),     simd::MakeQuantKernels<V, kQ2_KLayout, kTiles>(),     \
   simd::MakeQuantKernels<V, kQ3_KLayout, kTiles>(),     simd::MakeQuantKernels<V, kQ4_KLayout, kTiles>(),     \
   simd::MakeQuantKernels<V, kQ5_KLayout, kTiles>(),     simd::MakeQuantKernels<V, kQ6_KLayout, kTiles>(),     \
   simd::MakeQuantKernels<V, kIq4NlLayout, kTiles>(),    simd::MakeQuantKernels<V, kIq4XsLayout, kTiles>(),    \
   simd::MakeQuantKernels<V, kMxfp4Layout, kTiles>(),    simd::MakeQuantKernels<V, kNf4Layout, kTiles>(),      \
   simd::MakeQuantKernels<V, kFp4Layout, kTiles>(),      simd::MakeQuantKernels<V, kInt8Layout, kTiles>(),     \
   simd::MakeQuantKernels<V, kInt8G128Layout, kTiles>(), simd::MakeQuantKernels<V, kInt4G128Layout, kTiles>(), \
   simd::MakeQuantKernels<V, kInt3G128Layout, kTiles>(), simd::MakeQuantKernels<V, kInt2G128Layout, kTiles>(), \
   simd::MakeQuantKernels<V, kInt8G32Layout, kTiles>(),  simd::MakeQuantKernels<V, kInt4G32Layout, kTiles>(),  \
   simd::MakeQuantKernels<V, kInt3G32Layout, kTiles>(),  simd::MakeQuantKernels<V, kInt2G32Layout, kTiles>(),  \
   simd::MakeQuantKernels<V, kE4M3Layout, kTiles>(),     simd::MakeQuantKernels<V, kE5M2Layout, kTiles>()}

}  // namespace kvasir::simd
