// The attention kernels over a vector type. Included by the files that instantiate them for an instruction set; see
// attention_kernels.h for the contract.
//
// A task's rows go through a chunk of KV in passes of M rows: scores of all tiles that any row sees, softmax row by
// row, then sums over V. Each score is one chain of additions over the head's dimensions, each sum one chain over the
// chunk's slots (or two, of the even and the odd ones, where a format sums so); M, the order of passes and the tiles
// that neighbours need change no bits, since a slot that a row does not see adds exactly 0 to its sums.
#pragma once

#include "kernels/attention_kernels.h"
#include "kernels/cpu/attention_codes_impl.h"
#include "kernels/cpu/attention_formats_impl.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/kernel_set.h"

namespace kvasir::simd {

inline constexpr float kInfinity = __builtin_huge_valf();
inline constexpr float kLog2E = 1.4426950408889634f;

template <class V>
inline constexpr int kTileVectors = 16 / V::kLanes;

// Beyond a vector type's own members, V has:
//   kMaxPass: query rows per pass, at most kPassRows; TilesAtOnce(m), VectorsAtOnce(m): tiles whose scores, and vectors
//   of V whose sums, stay in registers for m query rows; First; Difference(u, b): the
//   signed dwords u - b as floats; SelectInRange(x, low, high, a, b): a where low <= x <= high, else b; ScaleOrZero(p,
//   n, x): p · 2^n, but 0 where x < -125 (p not NaN) or x = -inf; Bf16, F16: the formats of such caches.

// ---- Functions of scores.

/// 2^x for x <= 0 or thereabouts, relative error 2e-7; 0 below 2^-125; NaN stays NaN.
template <class V>
inline typename V::F Exp2(typename V::F x) {
  using F = typename V::F;
  const F n = V::Round(x);
  const F f = V::Sub(x, n);
  // Minimax polynomial of 2^f on [-1/2, 1/2] with 1 as its first coefficient, so that 2^0 is exact.
  F p = V::Fma(V::Set1(0.0013264728f), f, V::Set1(0.009671513f));
  p = V::Fma(p, f, V::Set1(0.055507336f));
  p = V::Fma(p, f, V::Set1(0.24022242f));
  p = V::Fma(p, f, V::Set1(0.693147f));
  p = V::Fma(p, f, V::Set1(1.0f));
  return V::ScaleOrZero(p, n, x);
}

template <class V>
class AttentionImpl {
 public:
  using F = typename V::F;

  /// Tiles or vectors at once where each sum takes `sums` registers, and `of_one` if it took one.
  static constexpr int SumsAtOnce(int of_one, int m, int sums) { return sums == 1 || m == 1 ? of_one : of_one / 2; }

  // ---- What a task knows before it starts.

  /// How scores become logits in powers of two.
  struct ScoreMap {
    bool plain = true;    // only a positive factor, applied within the exponential
    float factor = 1.0f;  // logit in powers of two = factor · mapped score
    float scale = 1.0f;   // the rest only where not plain
    float softcap = 0.0f;
    bool alibi = false;
    bool alibi_bf16 = false;
  };

  static ScoreMap MakeScoreMap(const AttentionArgs& args) {
    ScoreMap map;
    map.alibi = args.alibi_slopes != nullptr;
    map.alibi_bf16 = args.alibi_bf16;
    map.scale = args.scale;
    map.softcap = args.softcap;
    map.plain = !map.alibi && args.softcap == 0.0f && args.scale > 0.0f;
    map.factor = map.plain ? args.scale * kLog2E : kLog2E;
    return map;
  }

  /// What one row at position `own` sees: slots with position in [low, high], and of a tree's slots those of its path.
  struct RowRange {
    int32_t low, high, own;
    const uint64_t* path;  // TokenTree::ancestors of the row; null without a tree
  };

  struct Task {
    const AttentionTask* task;
    const AttentionArgs* args;
    ScoreMap map;
    int64_t group;
    int64_t head_dim;
    int64_t lines;  // of a K tile

    int64_t Token(int row) const { return (task->row_begin + row) / group; }
    int64_t QueryHead(int row) const { return task->head * group + (task->row_begin + row) % group; }
  };

  static int32_t PositionOf(const AttentionArgs& args, int64_t slot) {
    if (args.tree != nullptr && slot >= args.first_slot) return args.tree->positions[slot - args.first_slot];
    return args.kv.positions != nullptr ? args.kv.positions[slot] : static_cast<int32_t>(slot);
  }

  static RowRange RangeOf(const Task& t, int row) {
    const int32_t position = PositionOf(*t.args, t.args->first_slot + t.Token(row));
    const TokenTree* const tree = t.args->tree;
    const int64_t window = t.args->window;
    const int64_t least = t.args->min_distance;
    const bool bounded = window > 0 && window <= position;
    return {.low = bounded ? static_cast<int32_t>(position - window + 1) : 0,
            .high = least <= position ? static_cast<int32_t>(position - least) : -1,
            .own = position,
            .path = tree != nullptr ? tree->ancestors + t.Token(row) * tree->words : nullptr};
  }

  // ---- Queries.

  /// Packs `count` rows from `row` on, padded to M by repeating the last, for broadcasting: [lines][M][kWords].
  template <typename Format>
  static void PackQueries(const Task& t, int row, int count, int m, float* out) {
    constexpr int kWords = Format::kWords;
    const int64_t d = t.head_dim;
    for (int i = 0; i < m; ++i) {
      const int r = row + (i < count ? i : count - 1);
      const float* q = t.args->q.data + t.Token(r) * t.args->q.stride + t.QueryHead(r) * d;
      for (int64_t at = 0; at < d; at += 16) {
        const int n = static_cast<int>(d - at < 16 ? d - at : 16);
        alignas(64) float in[16] = {};
        alignas(64) float words[16];
        for (int v = 0; v < kTileVectors<V>; ++v) {
          const int left = n - v * V::kLanes;
          if (left > 0)
            V::Store(in + v * V::kLanes,
                     V::LoadN(q + at + v * V::kLanes, left < V::kLanes ? left : V::kLanes, V::Zero()));
        }
        for (int v = 0; v < kTileVectors<V>; ++v) {
          F x = V::Load(in + v * V::kLanes);
          if constexpr (requires { Format::kRoundsQueries; }) x = V::AsF(V::RoundBf16(x));
          Format::StoreWeights(words + v * (kTileWords<Format> / kTileVectors<V>), x);
        }
        const int64_t line = at / Format::kGroup;
        for (int j = 0; j < 16 / Format::kGroup && line + j < t.lines; ++j) {
          for (int w = 0; w < kWords; ++w) out[((line + j) * m + i) * kWords + w] = words[j * kWords + w];
        }
      }
    }
  }

  // ---- The two products.

  /// While passes use a tile they ask for the one that is kAheadTiles behind it in their order of use, line for line in
  /// the order in which they use lines, and move those that they use next into the first-level cache: in one step a
  /// core has fewer lines on their way.
  static constexpr int kAheadTiles = 8;

  /// Asks for kLines lines from p on, for the second-level cache or, near, the first.
  template <int kLines, bool kNear = false>
  [[gnu::always_inline]] static void Fetch(const std::byte* p) {
#pragma GCC unroll 64
    for (int i = 0; i < kLines; ++i) __builtin_prefetch(p + i * 64, 0, kNear ? 3 : 2);
  }

  /// scores[m][tile] = Σ q[m] · k[tile] for T tiles. Reads k as far as kAheadTiles behind them, to fetch.
  template <typename Format, int M, int T>
  __attribute__((noinline)) static void ScoreTiles(const float* q, int64_t lines, const std::byte* const* k,
                                                   float* scores) {
    constexpr int kN = T * kTileVectors<V>;
    F acc[M][kN][Format::kSums];
#pragma GCC unroll 64
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
      for (int v = 0; v < kN; ++v) {
#pragma GCC unroll 2
        for (int s = 0; s < Format::kSums; ++s) acc[m][v][s] = V::Zero();
      }
    }
    for (int64_t i = 0; i < lines; ++i) {
#pragma GCC unroll 64
      for (int t = 0; t < T; ++t) {
        Fetch<1>(k[t + kAheadTiles] + i * 64);
        Fetch<1, true>(k[t + T] + i * 64);
      }
      typename Format::Line line[kN];
#pragma GCC unroll 64
      for (int v = 0; v < kN; ++v) {
        line[v] = Format::Load(k[v / kTileVectors<V>] + i * 64 + v % kTileVectors<V> * V::kLanes * 4);
      }
#pragma GCC unroll 64
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
        for (int v = 0; v < kN; ++v) Format::Add(acc[m][v], line[v], q + m * Format::kWords);
      }
      q += M * Format::kWords;
    }
#pragma GCC unroll 64
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
      for (int v = 0; v < kN; ++v) {
        F score = acc[m][v][0];
        if constexpr (Format::kSums == 2) score = Format::Total(score, acc[m][v][1]);
        V::Store(scores + m * kScoreStride + v * V::kLanes, score);
      }
    }
  }

  /// acc[m][dims] += Σ p[m] · v[dims] over whole tiles, for D vectors of dimensions; an accumulator is kSums vectors.
  /// With kTail the only vector has `last` lanes. Reads v as far as kAheadTiles behind the tiles, to fetch.
  template <typename Format, int M, int D, bool kTail>
  __attribute__((noinline)) static void SumTiles(const float* p, int tiles, const std::byte* const* v, int64_t head_dim,
                                                 int64_t first_dim, int last, float* acc, int64_t acc_stride) {
    static_assert(!kTail || D == 1);
    constexpr int kSums = Format::kSums;
    F sum[M][D][kSums];
#pragma GCC unroll 64
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
      for (int d = 0; d < D; ++d) {
#pragma GCC unroll 2
        for (int s = 0; s < kSums; ++s) sum[m][d][s] = V::Load(acc + m * acc_stride + (d * kSums + s) * V::kLanes);
      }
    }
    for (int tile = 0; tile < tiles; ++tile) {
      const std::byte* base = v[tile] + first_dim * 4;
      const int64_t ahead = v[tile + kAheadTiles] - v[tile];
      const int64_t near = v[tile + 1] - v[tile];
      for (int j = 0; j < 16 / Format::kGroup; ++j) {
        constexpr int kLines = (D + kTileVectors<V> - 1) / kTileVectors<V>;
        Fetch<kLines>(base + ahead);
        Fetch<kLines, true>(base + near);
        typename Format::Line line[D];
#pragma GCC unroll 64
        for (int d = 0; d < D; ++d) {
          line[d] = kTail ? Format::LoadN(base, last) : Format::Load(base + d * V::kLanes * 4);
        }
#pragma GCC unroll 64
        for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
          for (int d = 0; d < D; ++d) Format::Add(sum[m][d], line[d], p + m * kScoreStride);
        }
        p += Format::kWords;
        base += head_dim * 4;
      }
    }
#pragma GCC unroll 64
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
      for (int d = 0; d < D; ++d) {
#pragma GCC unroll 2
        for (int s = 0; s < kSums; ++s) V::Store(acc + m * acc_stride + (d * kSums + s) * V::kLanes, sum[m][d][s]);
      }
    }
  }

  /// Vectors of V whose sums stay in registers.
  template <typename Format, int M>
  static constexpr int kVectorsAtOnce = SumsAtOnce(V::VectorsAtOnce(M), M, Format::kSums);

  /// SumTiles over all dimensions, D vectors at a time, then by halves of D.
  template <typename Format, int M, int D>
  static void SumAll(const float* p, int tiles, const std::byte* const* v, int64_t head_dim, float* acc,
                     int64_t acc_stride, int64_t at = 0) {
    float* to = acc + at * Format::kSums;
    for (; at + D * V::kLanes <= head_dim; at += D * V::kLanes, to += D * V::kLanes * Format::kSums) {
      SumTiles<Format, M, D, false>(p, tiles, v, head_dim, at, 0, to, acc_stride);
    }
    if constexpr (D > 1) {
      if (at < head_dim) SumAll<Format, M, (D + 1) / 2>(p, tiles, v, head_dim, acc, acc_stride, at);
    } else if (at < head_dim) {
      const int last = static_cast<int>(head_dim - at);
      SumTiles<Format, M, 1, true>(p, tiles, v, head_dim, at, last, to, acc_stride);
    }
  }

  // ---- A chunk.

  /// Positions of a chunk's slots, and which tiles hold what. Slots that do not count (outside the view, or with a
  /// negative position: empty) have position -1, which no row sees.
  struct Chunk {
    int32_t* position;              // [kChunkSlots]
    int32_t least[kChunkTiles];     // of all 16 slots
    int32_t smallest[kChunkTiles];  // of the slots that count
    int32_t greatest[kChunkTiles];
    int64_t first_tile;
    int64_t tree_begin;  // index of the slot at which a tree begins, if there is one; may lie before the chunk
    int64_t tree_tile;   // the first tile with such slots
  };

  static void DescribeChunk(const AttentionArgs& args, int64_t chunk, Chunk* c) {
    const KvView& kv = args.kv;
    const int64_t begin = chunk * kChunkSlots;
    c->first_tile = chunk * kChunkTiles;
    c->tree_begin = args.tree != nullptr ? args.first_slot - begin : kChunkSlots;
    c->tree_tile = c->tree_begin > 0 ? c->tree_begin / 16 : 0;
    for (int64_t tile = 0; tile < kChunkTiles; ++tile) {
      const int64_t first = begin + tile * 16;
      if (first >= kv.length || first + 16 <= kv.first_valid) {
        c->least[tile] = c->greatest[tile] = -1;
        c->smallest[tile] = INT32_MAX;
        continue;
      }
      const bool in_order = kv.positions == nullptr && tile < c->tree_tile;
      if (in_order && first >= kv.first_valid && first + 16 <= kv.length) {
        for (int i = 0; i < 16; ++i) c->position[tile * 16 + i] = static_cast<int32_t>(first) + i;
        c->least[tile] = c->smallest[tile] = static_cast<int32_t>(first);
        c->greatest[tile] = static_cast<int32_t>(first) + 15;
        continue;
      }
      int32_t least = INT32_MAX;
      int32_t smallest = INT32_MAX;
      int32_t greatest = -1;
      for (int64_t i = tile * 16; i < tile * 16 + 16; ++i) {
        const int64_t slot = begin + i;
        int32_t position = -1;
        if (slot >= kv.first_valid && slot < kv.length) position = PositionOf(args, slot);
        if (position < 0) position = -1;
        c->position[i] = position;
        least = position < least ? position : least;
        greatest = position > greatest ? position : greatest;
        if (position >= 0 && position < smallest) smallest = position;
      }
      c->least[tile] = least;
      c->smallest[tile] = smallest;
      c->greatest[tile] = greatest;
    }
  }

  /// Positions of a tile's slots, with -1 for those of a tree that are not on a row's path. buffer: [16].
  static const int32_t* SeenPositions(const Chunk& c, int64_t tile, const RowRange& range, int32_t* buffer) {
    const int32_t* const position = c.position + tile * 16;
    if (tile < c.tree_tile || range.path == nullptr) return position;
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t token = tile * 16 + i - c.tree_begin;
      // Slots behind the last token have no position, and may have no word.
      const bool seen = token < 0 || (position[i] >= 0 && (range.path[token / 64] >> (token % 64) & 1) != 0);
      buffer[i] = seen ? position[i] : -1;
    }
    return buffer;
  }

  /// Walks over the K tiles of a head, without a division at every step.
  struct TileCursor {
    const KvView& kv;
    int64_t block, at, head_offset;

    TileCursor(const KvView& view, int64_t head, int64_t tile)
        : kv(view), block(tile / view.block_tiles), at(tile % view.block_tiles), head_offset(head * view.head_stride) {}
    const std::byte* Get() const { return kv.blocks[block] + head_offset + at * kv.tile_stride; }
    void Next() {
      if (++at == kv.block_tiles) {
        at = 0;
        ++block;
      }
    }
  };

  /// The tiles of a chunk that some row of a pass sees.
  struct TileList {
    int count = 0;
    int8_t tile[kChunkTiles];
    bool whole[kChunkTiles];   // every row sees all 16 slots
    int partial[kChunkTiles];  // indices of those that are not whole
    int partials = 0;
    // In the order of their use: the tiles of K, those of V, and what comes next, as far as fetching reaches.
    const std::byte* data[2 * kChunkTiles + kAheadTiles];

    const std::byte* const* k() const { return data; }
    const std::byte* const* v() const { return data + count; }
  };

  /// The tiles of a pass's `rows` rows. Its task ends before end_tile.
  static void ListTiles(const Task& t, const Chunk& c, const RowRange* ranges, int rows, int64_t end_tile,
                        TileList* list) {
    const KvView& kv = t.args->kv;
    RowRange all = ranges[0];   // what some row may see
    RowRange each = ranges[0];  // what every row sees
    for (int r = 1; r < rows; ++r) {
      all.low = ranges[r].low < all.low ? ranges[r].low : all.low;
      all.high = ranges[r].high > all.high ? ranges[r].high : all.high;
      each.low = ranges[r].low > each.low ? ranges[r].low : each.low;
      each.high = ranges[r].high < each.high ? ranges[r].high : each.high;
    }
    list->count = 0;
    list->partials = 0;
    TileCursor cursor(kv, t.task->head, c.first_tile);
    for (int64_t tile = 0; tile < kChunkTiles; ++tile, cursor.Next()) {
      if (c.smallest[tile] > all.high || c.greatest[tile] < all.low) continue;
      const int n = list->count++;
      list->tile[n] = static_cast<int8_t>(tile);
      list->whole[n] = tile < c.tree_tile && c.least[tile] >= each.low && c.greatest[tile] <= each.high;
      if (!list->whole[n]) list->partial[list->partials++] = n;
      list->data[n] = cursor.Get();
    }
    const int n = list->count;
    if (n == 0) return;
    for (int i = 0; i < n; ++i) list->data[n + i] = list->data[i] + kv.v_offset;
    // The cursor stands at the next chunk's keys.
    for (int i = 0; i < kAheadTiles; ++i, cursor.Next()) {
      list->data[2 * n + i] = c.first_tile + kChunkTiles + i < end_tile ? cursor.Get() : list->data[2 * n - 1];
    }
  }

  static F RoundedBias(float slope, F position) { return V::AsF(V::RoundBf16(V::Mul(V::Set1(slope), position))); }

  /// Scale, softcap and ALiBi of a vector of scores, where they are more than a factor.
  __attribute__((always_inline)) static F MapScores(const ScoreMap& map, F score, const int32_t* position, int32_t own,
                                                    float slope, float own_bias, float bias_scale) {
    F s = V::Mul(score, V::Set1(map.scale));
    if (map.softcap != 0.0f) s = V::Mul(V::Set1(map.softcap), Tanh<V>(V::Div(s, V::Set1(map.softcap))));
    if (map.alibi && map.alibi_bf16) {
      // Rounded at the absolute position, as such checkpoints were trained; then the row's own is taken off, so that
      // far from the start the logits do not grow.
      const F bias = RoundedBias(slope, V::Difference(V::LoadU(position), 0));
      return V::Fma(V::Sub(bias, V::Set1(own_bias)), V::Set1(bias_scale), s);
    }
    if (map.alibi) s = V::Fma(V::Set1(slope * bias_scale), V::Difference(V::LoadU(position), own), s);
    return s;
  }

  /// Makes scores of one row over the listed tiles logits, but for the map's factor, with -inf where the row does not
  /// see. Returns the largest, in powers of two.
  static float MaskRow(const Task& t, const TileList& list, const Chunk& c, int row, RowRange range, float* scores) {
    const ScoreMap& map = t.map;
    float slope = 0.0f;
    float own_bias = 0.0f;
    if (map.alibi) {
      slope = t.args->alibi_slopes[t.QueryHead(row)];
      if (map.alibi_bf16) {
        slope = V::First(V::AsF(V::RoundBf16(V::Set1(slope))));
        own_bias = V::First(RoundedBias(slope, V::Set1(static_cast<float>(range.own))));
      }
    }
    if (!map.plain) {
      for (int n = 0; n < list.count; ++n) {
        for (int v = 0; v < 16; v += V::kLanes) {
          float* at = scores + n * 16 + v;
          const int32_t* position = c.position + list.tile[n] * 16 + v;
          V::Store(at, MapScores(map, V::Load(at), position, range.own, slope, own_bias, t.args->alibi_scale));
        }
      }
    }
    for (int i = 0; i < list.partials; ++i) {
      const int n = list.partial[i];
      int32_t buffer[16];
      const int32_t* const position = SeenPositions(c, list.tile[n], range, buffer);
      for (int v = 0; v < 16; v += V::kLanes) {
        float* at = scores + n * 16 + v;
        V::Store(at, V::SelectInRange(V::LoadU(position + v), range.low, range.high, V::Load(at), V::Set1(-kInfinity)));
      }
    }
    // Several chains, lest each maximum wait for the one before.
    constexpr int kChains = 4;
    const int vectors = list.count * kTileVectors<V>;
    F most[kChains];
    for (F& chain : most) chain = V::Load(scores);
    int i = 0;
    for (; i + kChains <= vectors; i += kChains) {
#pragma GCC unroll 4
      for (int j = 0; j < kChains; ++j) most[j] = V::Max(most[j], V::Load(scores + (i + j) * V::kLanes));
    }
    for (; i < vectors; ++i) most[0] = V::Max(most[0], V::Load(scores + i * V::kLanes));
    const float top = V::HorizontalMax(V::Max(V::Max(most[0], most[1]), V::Max(most[2], most[3])));
    // All masked: any finite maximum makes the weights 0. A NaN among the scores reaches the sum either way.
    return top == -kInfinity ? 0.0f : top * map.factor;
  }

  /// What MaskRow made of a row's scores becomes weights in place. Returns their sum.
  template <typename Format>
  static float WeighRow(const ScoreMap& map, const TileList& list, float max, float* scores) {
    const float* const end = scores + list.count * 16;
    const F factor = V::Set1(map.factor);
    const F minus = V::Set1(-max);
    F total = V::Zero();
    float* weights = scores;
    for (const float* at = scores; at < end; at += V::kLanes) {
      const F p = Exp2<V>(V::Fma(V::Load(at), factor, minus));
      total = V::Add(total, p);
      Format::StoreWeights(weights, p);
      weights += kTileWords<Format> / kTileVectors<V>;
    }
    return V::HorizontalSum(total);
  }

  /// into += from, for one row.
  __attribute__((noinline)) static void MergeRow(float max, float sum, const float* acc, int64_t width, float* into_max,
                                                 float* into_sum, float* into_acc) {
    if (sum == 0.0f) return;
    if (*into_sum == 0.0f) {
      *into_max = max;
      *into_sum = sum;
      for (int64_t i = 0; i < width; i += V::kLanes) V::Store(into_acc + i, V::Load(acc + i));
      return;
    }
    const float top = max > *into_max ? max : *into_max;
    const float a = V::First(Exp2<V>(V::Set1(*into_max - top)));
    const float b = V::First(Exp2<V>(V::Set1(max - top)));
    const F va = V::Set1(a);
    const F vb = V::Set1(b);
    *into_max = top;
    *into_sum = V::First(V::Fma(V::Set1(*into_sum), va, V::Mul(V::Set1(sum), vb)));
    for (int64_t i = 0; i < width; i += V::kLanes) {
      V::Store(into_acc + i, V::Fma(V::Load(into_acc + i), va, V::Mul(V::Load(acc + i), vb)));
    }
  }

  struct Pass {
    int row;    // first row of the task
    int count;  // rows that are real
    float* q;
    RowRange ranges[V::kMaxPass];
  };

  /// Scores of the listed tiles from `tile` on, T at a time, then by halves of T.
  template <typename Format, int M, int T>
  static void ScoreAll(const Task& t, const TileList& list, const float* q, float* scores, int tile = 0) {
    for (; tile + T <= list.count; tile += T) {
      if constexpr (CodeFormat<Format>) {
        Format::template ScoreTiles<M, T>(q, t.head_dim, list.k() + tile, scores + tile * 16);
      } else {
        ScoreTiles<Format, M, T>(q, t.lines, list.k() + tile, scores + tile * 16);
      }
    }
    if constexpr (T > 1) {
      if (tile < list.count) ScoreAll<Format, M, (T + 1) / 2>(t, list, q, scores, tile);
    }
  }

  /// One pass of M (padded) rows through one chunk.
  template <typename Format, int M>
  static void RunPass(const Task& t, const Chunk& c, int64_t end_tile, const Pass& pass, float* scores, float* acc,
                      const AttentionState& state) {
    TileList list;
    ListTiles(t, c, pass.ranges, pass.count, end_tile, &list);
    if (list.count == 0) return;

    ScoreAll<Format, M, SumsAtOnce(V::TilesAtOnce(M), M, Format::kSums)>(t, list, pass.q, scores);

    float max[M];
    float sum[M];
    // Row by row in two turns, so that no row waits for its own maximum.
    for (int r = 0; r < pass.count; ++r) {
      max[r] = MaskRow(t, list, c, pass.row + r, pass.ranges[r], scores + r * kScoreStride);
    }
    for (int r = 0; r < pass.count; ++r) sum[r] = WeighRow<Format>(t.map, list, max[r], scores + r * kScoreStride);

    const int64_t stride = state.stride;
    constexpr int kSums = Format::kSums;
    for (int64_t i = 0; i < M * stride * kSums; i += V::kLanes) V::Store(acc + i, V::Zero());
    if constexpr (CodeFormat<Format>) {
      Format::template SumValues<M>(list, c, pass, t.head_dim, scores, acc, stride);
    } else {
      // Few tiles at a time, so that memory is read in order.
      for (int first = 0; first < list.count; first += kAheadTiles) {
        const int tiles = list.count - first < kAheadTiles ? list.count - first : kAheadTiles;
        SumAll<Format, M, kVectorsAtOnce<Format, M>>(scores + first * kTileWords<Format>, tiles, list.v() + first,
                                                     t.head_dim, acc, stride * kSums);
      }
      if constexpr (kSums == 2) {
        for (int64_t i = 0; i < pass.count * stride; i += V::kLanes) {
          V::Store(acc + i, Format::Total(V::Load(acc + i * 2), V::Load(acc + i * 2 + V::kLanes)));
        }
      }
    }
    for (int r = 0; r < pass.count; ++r) {
      const int row = pass.row + r;
      MergeRow(max[r], sum[r], acc + r * stride, stride, state.max + row, state.sum + row, state.acc + row * stride);
    }
  }

  /// The number of rows that a pass of `count` rows is padded to.
  static int PaddedRows(int count) {
    if (count >= V::kMaxPass) return V::kMaxPass;
    if (count <= 2) return count;
    if (count <= 4) return 4;
    return count <= 6 ? 6 : count <= 8 ? 8 : 12;
  }

  template <typename Format>
  static void AttendFormat(const AttentionTask& task, int64_t chunk_begin, int64_t chunk_end, float* scratch,
                           const AttentionState& state, int64_t state_step) {
    const AttentionArgs& args = *task.args;
    const int64_t d = args.kv.head_dim;
    const Task t = {&task,
                    &args,
                    MakeScoreMap(args),
                    args.n_heads / args.kv.kv_heads,
                    d,
                    (d + Format::kGroup - 1) / Format::kGroup};
    float* scores = scratch;
    float* acc = scores + kPassRows * kScoreStride;
    Chunk chunk;
    chunk.position = reinterpret_cast<int32_t*>(acc + 2 * kPassRows * state.stride);
    float* q = acc + 2 * kPassRows * state.stride + kChunkSlots;

    constexpr int kPasses = kTaskRows / V::kMaxPass + 1;
    Pass passes[kPasses];
    int n = 0;
    for (int row = 0; row < task.rows; row += V::kMaxPass, ++n) {
      Pass& pass = passes[n];
      pass.row = row;
      pass.count = task.rows - row < V::kMaxPass ? task.rows - row : V::kMaxPass;
      pass.q = q;
      const int m = PaddedRows(pass.count);
      if constexpr (CodeFormat<Format>) {
        Format::PackQueries(t, row, pass.count, m, q);
        q += Format::QueryFloats(d, m);
      } else {
        PackQueries<Format>(t, row, pass.count, m, q);
        q += m * t.lines * Format::kWords;
      }
      for (int r = 0; r < pass.count; ++r) pass.ranges[r] = RangeOf(t, row + r);
    }
    const int64_t length_tiles = (args.kv.length + kTileTokens - 1) / kTileTokens;
    const int64_t end_tile = chunk_end * kChunkTiles < length_tiles ? chunk_end * kChunkTiles : length_tiles;
    for (int64_t i = chunk_begin; i < chunk_end; ++i) {
      DescribeChunk(args, i, &chunk);
      const int64_t skip = (i - chunk_begin) * state_step;
      const AttentionState into = {state.max + skip, state.sum + skip, state.acc + skip, state.stride};
      for (int p = 0; p < n; ++p) {
        switch (PaddedRows(passes[p].count)) {
          case 1: RunPass<Format, 1>(t, chunk, end_tile, passes[p], scores, acc, into); break;
          case 2: RunPass<Format, 2>(t, chunk, end_tile, passes[p], scores, acc, into); break;
          case 4: RunPass<Format, 4>(t, chunk, end_tile, passes[p], scores, acc, into); break;
          case 6:
            if constexpr (V::kMaxPass >= 6) RunPass<Format, 6>(t, chunk, end_tile, passes[p], scores, acc, into);
            break;
          case 8:
            if constexpr (V::kMaxPass >= 8) RunPass<Format, 8>(t, chunk, end_tile, passes[p], scores, acc, into);
            break;
          default:
            if constexpr (V::kMaxPass >= 12) RunPass<Format, 12>(t, chunk, end_tile, passes[p], scores, acc, into);
            break;
        }
      }
    }
  }

  static void Attend(const AttentionTask& task, int64_t chunk_begin, int64_t chunk_end, float* scratch,
                     const AttentionState& state, int64_t state_step) noexcept {
    switch (task.args->kv.type) {
      case KvType::kF32: AttendFormat<KvF32<V>>(task, chunk_begin, chunk_end, scratch, state, state_step); break;
      case KvType::kBF16:
        AttendFormat<typename V::Bf16>(task, chunk_begin, chunk_end, scratch, state, state_step);
        break;
      case KvType::kF16: AttendFormat<typename V::F16>(task, chunk_begin, chunk_end, scratch, state, state_step); break;
      case KvType::kI8:
        AttendFormat<KvCodes<V, KvType::kI8>>(task, chunk_begin, chunk_end, scratch, state, state_step);
        break;
      case KvType::kI4:
        AttendFormat<KvCodes<V, KvType::kI4>>(task, chunk_begin, chunk_end, scratch, state, state_step);
        break;
    }
  }

  static void Merge(const AttentionState& from, int32_t rows, const AttentionState& into) noexcept {
    for (int32_t r = 0; r < rows; ++r) {
      MergeRow(from.max[r], from.sum[r], from.acc + r * from.stride, from.stride, into.max + r, into.sum + r,
               into.acc + r * into.stride);
    }
  }

  static void StoreRows(const AttentionTask& task, const AttentionState& state) noexcept {
    const AttentionArgs& args = *task.args;
    const int64_t d = args.kv.head_dim;
    const int64_t group = args.n_heads / args.kv.kv_heads;
    for (int32_t r = 0; r < task.rows; ++r) {
      const int64_t row = task.row_begin + r;
      float* out = args.out.data + row / group * args.out.stride + (task.head * group + row % group) * d;
      const bool empty = state.sum[r] == 0.0f;
      const F sum = V::Set1(empty ? 1.0f : state.sum[r]);
      for (int64_t i = 0; i < d; i += V::kLanes) {
        const F x = empty ? V::Zero() : V::Div(V::Load(state.acc + r * state.stride + i), sum);
        if (d - i >= V::kLanes) {
          V::Store(out + i, x);
        } else {
          V::StoreN(out + i, x, static_cast<int>(d - i));
        }
      }
    }
  }
};

template <class V>
constexpr AttentionKernels MakeAttentionKernels() {
  return {
      .attend = &AttentionImpl<V>::Attend, .merge = &AttentionImpl<V>::Merge, .store = &AttentionImpl<V>::StoreRows};
}

}  // namespace kvasir::simd
