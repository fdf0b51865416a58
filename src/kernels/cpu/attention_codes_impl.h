// Attention over caches of codes (i8 and i4). Included by attention_impl.h, whose passes it serves.
//
// Queries and weights become 16-bit integers, with a scale for each row and, of weights, each run of 128 slots; their
// products with codes are summed exactly, two at a time, and scales are applied to whole sums. So a load of codes costs
// one widening for all rows of a pass, sums may be split in any way, and rounding is finer than that of bf16 caches: an
// integer is off by at most 2^-16 of the largest, and 128 weights together by 2^-9 of the largest weight, as much as
// bf16 may take from each. Scales come from what a row sees and nothing else, so that its bits depend on no other row.
#pragma once

#include "kernels/attention_kernels.h"
#include "kernels/cpu/vec_math.h"

namespace kvasir::simd {

template <class V>
class AttentionImpl;
template <class V>
struct KvF32;

// Members of V used here beyond those that attention_impl.h lists:
//   LoadI8Pairs, LoadU8Pairs: 2 · kLanes bytes widened to 16 bits; LowCodes, HighCodes: the halves of such bytes;
//   DotPairs(acc, a, b): acc + a[0] · b[0] + a[1] · b[1] in each dword, of type I; ToFloats: of I; StoreWords(p, x): x
//   rounded to int16s.

/// Softmax weights stay fp32 until SumValues.
template <class V, KvType kType>
class KvCodes : public KvF32<V> {
 public:
  static constexpr bool kCodes = true;
  using F = typename V::F;
  using U = typename V::U;
  using I = typename V::I;
  using Impl = AttentionImpl<V>;

 private:
  static constexpr bool kI4 = kType == KvType::kI4;
  static constexpr int kLines = kI4 ? 2 : 1;  // vectors of pairs in a load of codes
  static constexpr int kVectors = 16 / V::kLanes;
  static constexpr int kRunTiles = 8;
  static constexpr int kRunSlots = kRunTiles * 16;
  static constexpr int kRunWords = kRunSlots / 2;
  static constexpr int kGroupBytes = kKvGroup / 4 * 32 + 64;
  static constexpr float kMostInt = 32767.0f;
  static constexpr float kLeast = 0x1p-100f;  // smaller queries are 0, as smaller steps are

  static int64_t Groups(int64_t d) { return kI4 ? (d + kKvGroup - 1) / kKvGroup : 1; }
  static int64_t GroupSize(int64_t d, int64_t group) {
    const int64_t left = d - group * kKvGroup;
    return kI4 && left > kKvGroup ? int64_t{kKvGroup} : left;
  }
  /// Loads of 32 bytes of a group's keys.
  static int64_t KeyLoads(int64_t n) { return (n + 2 * kLines - 1) / (2 * kLines); }

  /// The lines of one load of codes.
  [[gnu::always_inline]] static void Widen(const std::byte* p, U (&line)[kLines]) {
    if constexpr (kI4) {
      const U bytes = V::LoadU8Pairs(p);
      line[0] = V::LowCodes(bytes);
      line[1] = V::HighCodes(bytes);
    } else {
      line[0] = V::LoadI8Pairs(p);
    }
  }

  /// Scales of the slots from `first` on, whose group's parameters begin at p.
  static F LoadScales(const std::byte* p, int64_t first) {
    return kI4 ? V::EvenBf16(V::LoadU(p + first * 4)) : V::WidenBf16(p + first * 2);
  }
  static F LoadMinima(const std::byte* p, int64_t first) { return V::OddBf16(V::LoadU(p + first * 4)); }

 public:
  // ---- Queries: for each line of keys a pair of integers of every row, [lines][m]; for each group their sum of every
  // ---- row (i4), [groups][m]; then the scale of every row, [m].

  static int64_t QueryLines(int64_t d) { return KeyLoads(d) * kLines; }
  /// Floats of a pass's queries, at most m · AttentionStateStride(d).
  static int64_t QueryFloats(int64_t d, int m) { return (QueryLines(d) + Groups(d) + 1) * m; }

  static void PackQueries(const typename Impl::Task& t, int row, int count, int m, float* out) {
    const int64_t d = t.head_dim;
    const int64_t lines = QueryLines(d);
    float* sums = out + lines * m;
    float* scales = sums + Groups(d) * m;
    alignas(64) int16_t ints[kMaxHeadDim + 16];
    for (int i = 0; i < m; ++i) {
      if (i < count) scales[i] = RoundQuery(t, row + i, ints);
      if (i >= count) scales[i] = scales[count - 1];
      for (int64_t j = 0; j < lines; ++j) __builtin_memcpy(out + j * m + i, ints + 2 * j, 4);
      for (int64_t g = 0; g < Groups(d) && kI4; ++g) {
        int32_t sum = 0;
        for (int64_t j = 0; j < GroupSize(d, g); ++j) sum += ints[g * kKvGroup + j];
        sums[g * m + i] = static_cast<float>(sum);
      }
    }
  }

 private:
  /// One row's query as integers, zeros behind them; returns their scale, NaN where the query is not finite.
  static float RoundQuery(const typename Impl::Task& t, int row, int16_t* ints) {
    const int64_t d = t.head_dim;
    const float* q = t.args->q.data + t.Token(row) * t.args->q.stride + t.QueryHead(row) * d;
    const auto load = [&](int64_t at) {
      return d - at < V::kLanes ? V::LoadN(q + at, static_cast<int>(d - at), V::Zero()) : V::Load(q + at);
    };
    F most = V::Zero();
    F zero = V::Zero();
    for (int64_t at = 0; at < d; at += V::kLanes) {
      const F x = load(at);
      most = V::Max(most, V::Abs(x));
      zero = V::Fma(x, V::Zero(), zero);
    }
    const bool finite = V::HorizontalSum(zero) == 0.0f;
    const float greatest = V::HorizontalMax(most);
    const float inverse = finite && greatest >= kLeast ? kMostInt / greatest : 0.0f;
    int64_t at = 0;
    for (; at < d; at += V::kLanes) V::StoreWords(ints + at, finite ? V::Mul(load(at), V::Set1(inverse)) : V::Zero());
    for (int i = 0; i < 4; ++i) ints[at + i] = 0;
    return finite ? greatest / kMostInt : __builtin_nanf("");
  }

  // ---- Keys.

  /// Adds one group's part to the scores of T tiles, whose codes begin at `offset`; the last group's part makes them
  /// whole.
  template <int M, int T>
  __attribute__((noinline)) static void ScoreGroup(const float* q, const float* sums, const float* row_scales,
                                                   int64_t loads, const std::byte* const* k, int64_t offset, bool first,
                                                   bool last, float* scores) {
    constexpr int kN = T * kVectors;
    I acc[M][kN];
#pragma GCC unroll 64
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
      for (int v = 0; v < kN; ++v) acc[m][v] = I{};
    }
    const auto step = [&]() __attribute__((always_inline)) {
      U line[kN][kLines];
#pragma GCC unroll 64
      for (int v = 0; v < kN; ++v) Widen(k[v / kVectors] + offset + v % kVectors * V::kLanes * 2, line[v]);
#pragma GCC unroll 2
      for (int j = 0; j < kLines; ++j) {
#pragma GCC unroll 64
        for (int m = 0; m < M; ++m) {
          const U pair = V::AsU(V::Set1(q[m]));
#pragma GCC unroll 64
          for (int v = 0; v < kN; ++v) acc[m][v] = V::DotPairs(acc[m][v], line[v][j], pair);
        }
        q += M;
      }
      offset += 32;
    };
    const auto fetch = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 64
      for (int t = 0; t < T; ++t) Impl::template Fetch<1>(k[t + Impl::kAheadTiles] + offset);
    };
    // Two loads are a line of the caches; the scales behind the codes are one, or half.
    for (; loads >= 2; loads -= 2) {
      fetch();
      step();
      step();
    }
    if (loads > 0) step();
    fetch();
#pragma GCC unroll 64
    for (int v = 0; v < kN; ++v) {
      const std::byte* parameters = k[v / kVectors] + offset;
      const F scale = LoadScales(parameters, v % kVectors * V::kLanes);
#pragma GCC unroll 64
      for (int m = 0; m < M; ++m) {
        float* at = scores + m * kScoreStride + v * V::kLanes;
        F x = V::ToFloats(acc[m][v]);
        if constexpr (kI4) {
          x = V::Fma(x, scale, first ? V::Zero() : V::Load(at));
          x = V::Fma(LoadMinima(parameters, v % kVectors * V::kLanes), V::Set1(sums[m]), x);
          if (last) x = V::Mul(x, V::Set1(row_scales[m]));
        } else {
          x = V::Mul(V::Mul(x, V::Set1(row_scales[m])), scale);
        }
        V::Store(at, x);
      }
    }
  }

 public:
  /// scores[m][tile] = q[m] · k[tile] for T tiles.
  template <int M, int T>
  static void ScoreTiles(const float* q, int64_t d, const std::byte* const* k, float* scores) {
    const int64_t groups = Groups(d);
    const float* sums = q + QueryLines(d) * M;
    const float* row_scales = sums + groups * M;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t loads = KeyLoads(GroupSize(d, g));
      ScoreGroup<M, T>(q, sums + g * M, row_scales, loads, k, g * kGroupBytes, g == 0, g + 1 == groups, scores);
      q += loads * kLines * M;
    }
  }

  // ---- Values.

 private:
  /// Listed tiles of a pass that lie in one run: 128 slots from an absolute multiple on.
  struct Run {
    int first = 0;  // in the list
    int count = 0;
    bool whole = true;  // every row sees every slot
  };

  /// Scales and minima of one group in a run, NaN replaced by 0, and which slots had one.
  struct GroupScales {
    alignas(64) float scale[kRunSlots];
    alignas(64) float minimum[kI4 ? kRunSlots : 16];
    bool poisoned = false;
    bool poison[kRunSlots];
  };

  /// A run's weights as integers, and what they mean: Σ weight · value = factor · Σ integer · code + rest.
  template <int M>
  struct Weights {
    alignas(64) float words[M][kRunWords + 16];  // pairs of int16; a line more, lest the rows share cache sets
    float factor[M];
    float rest[M];
  };

  static void LoadGroup(const typename Impl::TileList& list, const Run& run, int64_t offset, GroupScales* out) {
    F zero = V::Zero();
    for (int i = 0; i < run.count; ++i) {
      const std::byte* parameters = list.v()[run.first + i] + offset;
      for (int v = 0; v < 16; v += V::kLanes) {
        const F scale = LoadScales(parameters, v);
        V::Store(out->scale + i * 16 + v, scale);
        if constexpr (kI4) V::Store(out->minimum + i * 16 + v, LoadMinima(parameters, v));
        zero = V::Fma(scale, V::Zero(), zero);
      }
    }
    out->poisoned = V::HorizontalSum(zero) != 0.0f;
    if (!out->poisoned) return;
    for (int i = 0; i < run.count * 16; ++i) {
      out->poison[i] = __builtin_isnan(out->scale[i]);
      if (!out->poison[i]) continue;
      out->scale[i] = 0.0f;
      if constexpr (kI4) out->minimum[i] = 0.0f;
    }
  }

  /// Divides a row's weights by their maximum, which it returns.
  static float Normalize(float* weights, int count) {
    F most = V::Load(weights);
    for (int i = V::kLanes; i < count * 16; i += V::kLanes) most = V::Max(most, V::Load(weights + i));
    const float greatest = V::HorizontalMax(most);
    const F inverse = V::Set1(greatest > 0.0f ? 1.0f / greatest : 0.0f);
    for (int i = 0; i < count * 16; i += V::kLanes) V::Store(weights + i, V::Mul(V::Load(weights + i), inverse));
    return greatest;
  }

  /// The greatest scale among the slots that a row sees; of tiles that are whole it is `whole`.
  static float GreatestScale(const typename Impl::TileList& list, const typename Impl::Chunk& c, const Run& run,
                             typename Impl::RowRange range, const GroupScales& group, F whole) {
    for (int i = 0; i < run.count && !run.whole; ++i) {
      if (list.whole[run.first + i]) continue;
      int32_t buffer[16];
      const int32_t* const position = Impl::SeenPositions(c, list.tile[run.first + i], range, buffer);
      for (int v = 0; v < 16; v += V::kLanes) {
        const F scale = V::Load(group.scale + i * 16 + v);
        whole = V::Max(whole, V::SelectInRange(V::LoadU(position + v), range.low, range.high, scale, V::Zero()));
      }
    }
    return V::HorizontalMax(whole);
  }

  /// One row's normalised weights times the slots' scales · inverse as integers; returns Σ weight · minimum.
  static float RoundWeights(const float* weights, int count, const GroupScales& group, float inverse, float* words) {
    auto* out = reinterpret_cast<std::byte*>(words);
    const F factor = V::Set1(inverse);
    F rest = V::Zero();
    for (int i = 0; i < count * 16; i += V::kLanes) {
      const F p = V::Load(weights + i);
      V::StoreWords(out + i * 2, V::Mul(p, V::Mul(V::Load(group.scale + i), factor)));
      if constexpr (kI4) rest = V::Fma(p, V::Load(group.minimum + i), rest);
    }
    return kI4 ? V::HorizontalSum(rest) : 0.0f;
  }

  /// weights: as Normalize leaves them, with `greatest` what it returned.
  template <int M>
  static void MakeWeights(const typename Impl::TileList& list, const typename Impl::Chunk& c,
                          const typename Impl::Pass& pass, const Run& run, const GroupScales& group,
                          const float* weights, const float* greatest, Weights<M>* out) {
    F whole = V::Zero();
    for (int i = 0; i < run.count; ++i) {
      if (!list.whole[run.first + i]) continue;
      for (int v = 0; v < 16; v += V::kLanes) whole = V::Max(whole, V::Load(group.scale + i * 16 + v));
    }
    const float all = run.whole ? V::HorizontalMax(whole) : 0.0f;
    for (int r = 0; r < pass.count; ++r) {
      const float scale = run.whole ? all : GreatestScale(list, c, run, pass.ranges[r], group, whole);
      const float* p = weights + r * kScoreStride;
      const float inverse = scale > 0.0f ? kMostInt / scale : 0.0f;
      out->factor[r] = scale / kMostInt * greatest[r];
      out->rest[r] = RoundWeights(p, run.count, group, inverse, out->words[r]) * greatest[r];
      for (int i = 0; i < run.count * 16 && group.poisoned; ++i) {
        if (group.poison[i] && p[i] != 0.0f) out->factor[r] = __builtin_nanf("");
      }
    }
  }

  /// How many chains of sums there are for each output: enough for the latency of DotPairs.
  static constexpr int Chains(int sums) { return sums >= 6 ? 1 : sums >= 3 ? 2 : 4; }

  /// acc[m][channels] += the run's part, for D loads of channels. Channels of one load: kLanes of each line, those of
  /// the second `half` behind those of the first. With kTail the only load has low and high of them.
  template <int M, int D, bool kTail>
  __attribute__((noinline)) static void SumCodes(const Weights<M>& w, int tiles, const std::byte* const* v,
                                                 int64_t offset, int64_t row_bytes, int64_t half, int low, int high,
                                                 float* acc, int64_t acc_stride) {
    static_assert(!kTail || D == 1);
    constexpr int kC = Chains(M * D * kLines);
    constexpr int kBytes = D * V::kLanes * 2;  // of a slot pair
    I sum[kC][M][D][kLines];
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
#pragma GCC unroll 64
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 64
        for (int d = 0; d < D; ++d) {
#pragma GCC unroll 2
          for (int j = 0; j < kLines; ++j) sum[c][m][d][j] = I{};
        }
      }
    }
    const float* words = w.words[0];
    for (int tile = 0; tile < tiles; ++tile) {
      const std::byte* base = v[tile] + offset;
      const int64_t ahead = v[tile + Impl::kAheadTiles] - v[tile];
      for (int pair = 0; pair < 8; pair += kC) {
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) {
          if (kBytes >= 64 || (pair + c) % (kBytes >= 64 ? 1 : 64 / kBytes) == 0) {
            Impl::template Fetch<(kBytes + 63) / 64>(base + ahead);
          }
          U line[D][kLines];
#pragma GCC unroll 64
          for (int d = 0; d < D; ++d) Widen(base + d * V::kLanes * 2, line[d]);
#pragma GCC unroll 64
          for (int m = 0; m < M; ++m) {
            const U weight = V::AsU(V::Set1(words[m * (kRunWords + 16)]));
#pragma GCC unroll 64
            for (int d = 0; d < D; ++d) {
#pragma GCC unroll 2
              for (int j = 0; j < kLines; ++j) sum[c][m][d][j] = V::DotPairs(sum[c][m][d][j], line[d][j], weight);
            }
          }
          ++words;
          base += row_bytes;
        }
      }
    }
#pragma GCC unroll 64
    for (int m = 0; m < M; ++m) {
      const F factor = V::Set1(w.factor[m]);
      const F rest = V::Set1(w.rest[m]);
#pragma GCC unroll 64
      for (int d = 0; d < D; ++d) {
#pragma GCC unroll 2
        for (int j = 0; j < kLines; ++j) {
          I total = sum[0][m][d][j];
#pragma GCC unroll 4
          for (int c = 1; c < kC; ++c) total = total + sum[c][m][d][j];
          float* at = acc + m * acc_stride + d * V::kLanes + j * half;
          const int count = j == 0 ? low : high;
          const F before = kTail ? V::LoadN(at, count, V::Zero()) : V::Load(at);
          F x = V::Fma(V::ToFloats(total), factor, before);
          if constexpr (kI4) x = V::Add(x, rest);
          if constexpr (kTail) {
            V::StoreN(at, x, count);
          } else {
            V::Store(at, x);
          }
        }
      }
    }
  }

  /// SumCodes over the channels [at, width) of a row of codes (of one group's halves, for i4), D loads at a time, then
  /// by halves of D.
  template <int M, int D>
  static void SumRow(const Weights<M>& w, int tiles, const std::byte* const* v, int64_t offset, int64_t n, float* acc,
                     int64_t acc_stride, int64_t at = 0) {
    const int64_t width = kI4 ? (n + 1) / 2 : n;  // of a row
    for (; at + D * V::kLanes <= width && (!kI4 || width * 2 == n); at += D * V::kLanes) {
      SumCodes<M, D, false>(w, tiles, v, offset + at * 2, width * 2, width, 0, 0, acc + at, acc_stride);
    }
    if constexpr (D > 1) {
      if (at < width) SumRow<M, (D + 1) / 2>(w, tiles, v, offset, n, acc, acc_stride, at);
    } else {
      for (; at < width; at += V::kLanes) {
        const auto lanes = [](int64_t left) { return static_cast<int>(left < V::kLanes ? left : V::kLanes); };
        const int low = lanes(width - at);
        const int high = kI4 ? lanes(n - width - at < 0 ? 0 : n - width - at) : 0;
        SumCodes<M, 1, true>(w, tiles, v, offset + at * 2, width * 2, width, low, high, acc + at, acc_stride);
      }
    }
  }

 public:
  /// acc[m] += Σ weight · value over the listed tiles, run by run. weights: of the softmax, and changed.
  template <int M>
  static void SumValues(const typename Impl::TileList& list, const typename Impl::Chunk& c,
                        const typename Impl::Pass& pass, int64_t d, float* weights, float* acc, int64_t acc_stride) {
    constexpr int kLoads = kI4 ? 1 : V::VectorsAtOnce(M);
    Weights<M> w = {};
    Run run;
    for (; run.first < list.count; run.first += run.count) {
      run.count = 0;
      run.whole = true;
      const int index = list.tile[run.first] / kRunTiles;
      while (run.first + run.count < list.count && list.tile[run.first + run.count] / kRunTiles == index) {
        run.whole &= list.whole[run.first + run.count++];
      }
      const std::byte* const* const v = list.v() + run.first;
      float* p = weights + run.first * 16;
      float greatest[M];
      for (int r = 0; r < pass.count; ++r) greatest[r] = Normalize(p + r * kScoreStride, run.count);
      for (int64_t g = 0; g < Groups(d); ++g) {
        const int64_t n = GroupSize(d, g);
        const int64_t codes = g * kGroupBytes;
        GroupScales group;
        const int64_t scales = codes + (kI4 ? (n + 1) / 2 : n) * 16;
        LoadGroup(list, run, scales, &group);
        MakeWeights<M>(list, c, pass, run, group, p, greatest, &w);
        for (int i = 0; i < run.count; ++i) Impl::template Fetch<1>(v[i + Impl::kAheadTiles] + scales);
        SumRow<M, kLoads>(w, run.count, v, codes, n, acc + g * kKvGroup, acc_stride);
      }
    }
  }
};

}  // namespace kvasir::simd
