// Caches of codes: quantisation against a float64 definition, layout, and attention where it differs from other types.
#include "kernels/kv_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>

#include "base/dtype.h"
#include "kernels/attention_test_util.h"
#include "kernels/kernel_set.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

using testing::DefineAttention;
using testing::Floats;
using testing::Random;
using testing::TestCache;

constexpr KvType kCodeTypes[] = {KvType::kI8, KvType::kI4};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kMax = std::numeric_limits<float>::max();

/// A head's codes, and what they stand for.
struct Quantized {
  Quantized(KvType type_in, const std::vector<float>& x) : type(type_in), codes(x.size()) {
    QuantizeKv(type, x.data(), static_cast<int64_t>(x.size()), codes.data(), scales);
  }
  double Step(int64_t i) const { return double{ToFloat(BFloat16{scales[KvGroupOf(type, i)].scale})}; }
  double Value(int64_t i) const {
    const uint8_t code = codes[static_cast<size_t>(i)];
    const double low = double{ToFloat(BFloat16{scales[KvGroupOf(type, i)].low})};
    return low + Step(i) * (type == KvType::kI8 ? static_cast<int8_t>(code) : code);
  }
  KvType type;
  std::vector<uint8_t> codes;
  KvScale scales[16];
};

/// Steps as exact arithmetic has them, and what rounding them outwards may add.
double LargestStep(KvType type, const std::vector<float>& x, int64_t i) {
  const auto n = static_cast<int64_t>(x.size());
  const int64_t begin = type == KvType::kI4 ? i / 32 * 32 : 0;
  const int64_t end = type == KvType::kI4 ? std::min(begin + 32, n) : n;
  double least = INFINITY;
  double most = -INFINITY;
  for (int64_t j = begin; j < end; ++j) {
    least = std::min(least, double{x[static_cast<size_t>(j)]});
    most = std::max(most, double{x[static_cast<size_t>(j)]});
  }
  if (type == KvType::kI8) return std::max(most, -least) / 127 * (1 + 0x1p-7);
  return (most - least + std::abs(least) * 0x1p-7) / 15 * (1 + 0x1p-7);
}

TEST(KvCodesTest, EveryValueIsWithinHalfAStep) {
  Random random(1);
  for (KvType type : kCodeTypes) {
    for (int64_t d : {1, 2, 3, 16, 31, 32, 33, 64, 80, 127, 128, 256, 511, 512}) {
      for (const float spread : {1.0f, 1e-6f, 1e-20f, 1e20f}) {
        for (const float offset : {0.0f, 3.0f, -100.0f}) {
          std::vector<float> x = random.Normals(d);
          for (float& v : x) v = (v + offset) * spread;
          if (d > 5) x[5] *= 500.0f;
          const Quantized q(type, x);
          for (int64_t i = 0; i < d; ++i) {
            const double step = q.Step(i);
            ASSERT_LE(step, LargestStep(type, x, i) * (1 + 1e-6));
            ASSERT_LE(std::abs(q.Value(i) - double{x[static_cast<size_t>(i)]}), step * (0.5 + 2e-5));
          }
        }
      }
    }
  }
}

TEST(KvCodesTest, CodesStayInTheirRange) {
  Random random(2);
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> x = random.Normals(40);
    for (float& v : x) v *= std::exp2(static_cast<float>(random.Below(240) - 120));
    for (const uint8_t code : Quantized(KvType::kI8, x).codes) ASSERT_NE(code, 0x80);
    for (const uint8_t code : Quantized(KvType::kI4, x).codes) ASSERT_LT(code, 16);
  }
}

TEST(KvCodesTest, EqualValuesTinyValuesAndHugeOnes) {
  for (KvType type : kCodeTypes) {
    const Quantized zeros(type, std::vector<float>(40, 0.0f));
    const Quantized tiny(type, std::vector<float>(40, 1e-38f));
    const Quantized same(type, std::vector<float>(40, -0.75f));
    const Quantized huge(type, {kMax, -kMax, 1.0f, 0.0f});
    for (int64_t i = 0; i < 40; ++i) {
      EXPECT_EQ(zeros.Value(i), 0.0);
      EXPECT_NEAR(tiny.Value(i), 0.0, 2e-38);
      EXPECT_NEAR(same.Value(i), -0.75, 0.75 / 127);
    }
    // Saturated at 2^100, in bf16 and outwards.
    EXPECT_NEAR(huge.Value(0) / 0x1p100, 1.0, 0.02);
    EXPECT_NEAR(huge.Value(1) / 0x1p100, -1.0, 0.02);
  }
}

TEST(KvCodesTest, WhatIsNotFinitePoisonsItsTokenOnly) {
  for (KvType type : kCodeTypes) {
    for (const float bad : {kNan, kInf, -kInf}) {
      std::vector<float> x(70, 1.0f);
      x[40] = bad;
      const Quantized q(type, x);
      for (int64_t i = 0; i < 70; ++i) {
        EXPECT_TRUE(std::isnan(q.Value(i)));
        EXPECT_EQ(q.codes[static_cast<size_t>(i)], 0);
      }
    }
  }
}

TEST(KvCodesTest, PlacesFillATileWithoutOverlap) {
  for (KvType type : kCodeTypes) {
    for (int64_t d : {1, 2, 3, 5, 16, 31, 32, 33, 34, 63, 64, 80, 127, 128, 512}) {
      for (const bool value : {false, true}) {
        std::set<std::pair<int64_t, int>> halves;
        const auto take = [&](int64_t byte, int shift) {
          ASSERT_GE(byte, 0);
          ASSERT_LT(byte, KvTileBytes(type, d));
          ASSERT_TRUE(halves.insert({byte, shift}).second) << "byte " << byte << " head size " << d;
        };
        for (int64_t s = 0; s < 16; ++s) {
          for (int64_t i = 0; i < d; ++i) {
            const KvCodePlace at = value ? ValueCodePlace(type, d, s, i) : KeyCodePlace(type, s, i);
            take(at.byte, at.shift);
            if (type == KvType::kI8) take(at.byte, 4);
          }
          for (int64_t g = 0; g < KvGroups(type, d); ++g) {
            const int64_t at = value ? ValueScaleOffset(type, d, s, g) : KeyScaleOffset(type, d, s, g);
            for (int64_t b = at; b < at + (type == KvType::kI8 ? 2 : 4); ++b) {
              take(b, 0);
              take(b, 4);
            }
          }
        }
        if (d % 32 == 0) {
          EXPECT_EQ(static_cast<int64_t>(halves.size()), 2 * KvTileBytes(type, d));
          EXPECT_EQ(KvTokenBytes(type, d) * kTileTokens, 2 * KvTileBytes(type, d));
        }
      }
    }
  }
  // The layout itself, spelled out.
  EXPECT_EQ(KeyCodePlace(KvType::kI8, 5, 7).byte, 3 * 32 + 5 * 2 + 1);
  EXPECT_EQ(ValueCodePlace(KvType::kI8, 64, 5, 7).byte, 2 * 128 + 7 * 2 + 1);
  EXPECT_EQ(KeyScaleOffset(KvType::kI8, 64, 5, 0), 1024 + 10);
  EXPECT_EQ(KeyCodePlace(KvType::kI4, 5, 32 + 7).byte, 320 + 32 + 5 * 2 + 1);
  EXPECT_EQ(KeyCodePlace(KvType::kI4, 5, 32 + 7).shift, 4);
  EXPECT_EQ(ValueCodePlace(KvType::kI4, 64, 5, 32 + 18).byte, 320 + 2 * 32 + 2 * 2 + 1);
  EXPECT_EQ(ValueCodePlace(KvType::kI4, 64, 5, 32 + 18).shift, 4);
  EXPECT_EQ(ValueScaleOffset(KvType::kI4, 64, 5, 1), 320 + 256 + 20);
}

/// Keys, values and queries over a cache of one type.
struct Fixture {
  Fixture(KvType type, int64_t slots, int32_t heads_in, int32_t group_in, int32_t d_in)
      : heads(heads_in),
        group(group_in),
        d(d_in),
        cache(type, heads, d, 3, slots),
        q(slots, heads * group * d, heads * group * d + 3, 1),
        k(slots, heads * d, heads * d + 1, 1),
        v(slots, heads * d, heads * d + 1, 3),
        out(slots, heads * group * d, heads * group * d + 5, 3) {
    std::mt19937 rng(7);
    q.Fill(rng, 1.5f);
    k.Fill(rng, 1.0f);
    v.Fill(rng, 1.0f);
  }
  void Write(const KernelSet* set, int64_t slots) {
    testing::TestContext context(set);
    const KvWrite write{MatView<const float>(k.view()).Rows(0, slots), MatView<const float>(v.view()).Rows(0, slots),
                        cache.View(slots), 0};
    WriteKv(context.ctx, {&write, 1});
  }
  AttentionArgs Args(int64_t begin, int64_t end) {
    AttentionArgs args;
    args.q = MatView<const float>(q.view()).Rows(begin, end - begin);
    args.out = out.view().Rows(begin, end - begin);
    args.kv = cache.View(end);
    args.first_slot = begin;
    args.n_heads = heads * group;
    args.scale = 1.0f / std::sqrt(static_cast<float>(d));
    return args;
  }
  Status Run(const KernelSet* set, int64_t begin, int64_t end) {
    testing::TestContext context(set);
    const AttentionArgs args = Args(begin, end);
    return Attention(context.ctx, {&args, 1});
  }
  int32_t heads, group, d;
  TestCache cache;
  Floats q, k, v, out;
};

class KvCodesIsaTest : public ::testing::TestWithParam<const KernelSet*> {};

TEST_P(KvCodesIsaTest, WritesWhatQuantizeSaysInAnyPieces) {
  for (KvType type : kCodeTypes) {
    for (int32_t d : {1, 2, 7, 33, 64, 80}) {
      Fixture f(type, 100, 3, 1, d);
      testing::TestContext context(GetParam());
      const auto piece = [&](int64_t begin, int64_t rows) {
        return KvWrite{MatView<const float>(f.k.view()).Rows(begin, rows),
                       MatView<const float>(f.v.view()).Rows(begin, rows), f.cache.View(100), begin};
      };
      // In pieces that end inside tiles, two writes at a time.
      for (int64_t begin = 0; begin < 100; begin += 25) {
        const KvWrite writes[] = {piece(begin, 3), piece(begin + 3, 22)};
        WriteKv(context.ctx, writes);
      }
      EXPECT_EQ(context.ctx.counters.kv_bytes, 100 * 3 * KvTokenBytes(type, d));
      const KvView view = f.cache.View(100);
      for (int64_t slot = 0; slot < 100; ++slot) {
        for (int64_t h = 0; h < 3; ++h) {
          const float* k = f.k.view().row(slot) + h * d;
          const float* v = f.v.view().row(slot) + h * d;
          const Quantized key(type, {k, k + d});
          const Quantized value(type, {v, v + d});
          for (int64_t i = 0; i < d; ++i) {
            ASSERT_EQ(ref::KeyAt(view, h, slot, i), static_cast<float>(key.Value(i)));
            ASSERT_EQ(ref::ValueAt(view, h, slot, i), static_cast<float>(value.Value(i)));
          }
        }
      }
    }
  }
}

// Integers leave less than bf16 would: against the definition in float64, over the same codes.
TEST_P(KvCodesIsaTest, SumsAreCloserThanBf16) {
  for (KvType type : kCodeTypes) {
    Fixture f(type, 1030, 1, 4, 128);
    // A few weights far above the others, as attention sinks have them, and a query with an outlier.
    for (int64_t i = 0; i < 128; ++i) f.k.view().row(0)[i] = f.q.view().row(1029)[i] * 0.5f;
    f.q.view().row(1028)[3] = 100.0f;
    f.Write(GetParam(), 1030);
    const AttentionArgs args = f.Args(1020, 1030);
    ASSERT_TRUE(f.Run(GetParam(), 1020, 1030).ok());
    const std::vector<double> expected = DefineAttention(args);
    double worst = 0;
    for (int64_t r = 0; r < 10; ++r) {
      for (int64_t i = 0; i < args.out.cols; ++i) {
        worst = std::max(worst, std::abs(double{args.out.row(r)[i]} - expected[static_cast<size_t>(r * 512 + i)]));
      }
    }
    EXPECT_LT(worst, 2.5e-3);  // bf16's limit in attention_test.cc is 6e-3, without outliers
  }
}

TEST_P(KvCodesIsaTest, PoisonStaysWithItsTokenInAnyCompany) {
  for (KvType type : kCodeTypes) {
    for (const bool value : {false, true}) {
      Fixture f(type, 300, 2, 2, 48);
      // Head 1 of token 140 is not finite.
      (value ? f.v : f.k).view().row(140)[48 + 5] = value ? kInf : kNan;
      f.Write(GetParam(), 300);
      ASSERT_TRUE(f.Run(GetParam(), 0, 300).ok());
      std::vector<float> at_once;
      for (int64_t r = 0; r < 300; ++r) {
        for (int64_t i = 0; i < 192; ++i) at_once.push_back(f.out.view().row(r)[i]);
        for (int64_t i = 0; i < 192; ++i) {
          ASSERT_EQ(std::isnan(f.out.view().row(r)[i]), r >= 140 && i >= 96) << "row " << r << " column " << i;
        }
      }
      // Row by row, over a cache that holds nothing later.
      Fixture g(type, 300, 2, 2, 48);
      (value ? g.v : g.k).view().row(140)[48 + 5] = value ? kInf : kNan;
      for (const int64_t r : {3, 127, 130, 139, 140, 143, 299}) {
        g.Write(GetParam(), r + 1);
        ASSERT_TRUE(g.Run(GetParam(), r, r + 1).ok());
        for (int64_t i = 0; i < 192; ++i) {
          const float x = at_once[static_cast<size_t>(r * 192 + i)];
          if (std::isnan(x)) continue;
          ASSERT_EQ(std::bit_cast<uint32_t>(g.out.view().row(r)[i]), std::bit_cast<uint32_t>(x));
        }
      }
    }
  }
}

TEST_P(KvCodesIsaTest, HugeAndTinyValuesStayFinite) {
  for (KvType type : kCodeTypes) {
    Fixture f(type, 40, 1, 1, 40);
    for (int64_t i = 0; i < 40; ++i) {
      f.v.view().row(3)[i] = i % 2 == 0 ? kMax : -kMax;
      f.k.view().row(4)[i] = 1e-38f;
      f.v.view().row(5)[i] = 1e-42f;
      f.q.view().row(39)[i] = 1e-42f;  // all scores are 0, whatever the keys
    }
    f.Write(GetParam(), 40);
    ASSERT_TRUE(f.Run(GetParam(), 0, 40).ok());
    for (int64_t r = 0; r < 40; ++r) {
      for (int64_t i = 0; i < 40; ++i) ASSERT_TRUE(std::isfinite(f.out.view().row(r)[i])) << r << " " << i;
    }
    f.q.view().row(39)[7] = kInf;
    ASSERT_TRUE(f.Run(GetParam(), 0, 40).ok());
    EXPECT_TRUE(std::isfinite(f.out.view().row(38)[0]));
    EXPECT_TRUE(std::isnan(f.out.view().row(39)[0]));
  }
}

TEST_P(KvCodesIsaTest, PlainAttentionAgrees) {
  for (KvType type : kCodeTypes) {
    Fixture f(type, 300, 2, 3, 72);
    f.Write(GetParam(), 300);
    ASSERT_TRUE(f.Run(GetParam(), 0, 300).ok());
    std::vector<float> tiled;
    for (int64_t r = 0; r < 300; ++r) tiled.insert(tiled.end(), f.out.view().row(r), f.out.view().row(r) + 432);
    testing::TestContext context(GetParam());
    const AttentionArgs args = f.Args(0, 300);
    ASSERT_TRUE(AttentionPlain(context.ctx, {&args, 1}).ok());
    for (int64_t r = 0; r < 300; ++r) {
      for (int64_t i = 0; i < 432; ++i) {
        ASSERT_NEAR(f.out.view().row(r)[i], tiled[static_cast<size_t>(r * 432 + i)], 1.5e-3f);
      }
    }
  }
}

// Beyond fp16's range values saturate: as infinities, multiplied by the weight 0 of rows that come before them, they
// would be NaN.
TEST_P(KvCodesIsaTest, Fp16CachesSaturate) {
  Fixture f(KvType::kF16, 40, 1, 1, 19);
  for (int64_t i = 0; i < 19; ++i) {
    f.v.view().row(20)[i] = i % 2 == 0 ? 1e6f : -65520.0f;
    f.k.view().row(21)[i] = -3e38f;
  }
  f.v.view().row(30)[2] = 65519.0f;  // rounds to the largest
  f.v.view().row(31)[2] = kInf;
  f.Write(GetParam(), 40);
  const KvView view = f.cache.View(40);
  for (int64_t i = 0; i < 19; ++i) {
    EXPECT_EQ(ref::ValueAt(view, 0, 20, i), i % 2 == 0 ? 65504.0f : -65504.0f);
    EXPECT_EQ(ref::KeyAt(view, 0, 21, i), -65504.0f);
  }
  EXPECT_EQ(ref::ValueAt(view, 0, 30, 2), 65504.0f);
  EXPECT_EQ(ref::ValueAt(view, 0, 31, 2), kInf);  // not ours to hide
  ASSERT_TRUE(f.Run(GetParam(), 0, 16).ok());
  f.v.view().row(31)[2] = 0.0f;
  f.Write(GetParam(), 40);
  ASSERT_TRUE(f.Run(GetParam(), 0, 40).ok());
  for (int64_t r = 0; r < 40; ++r) {
    for (int64_t i = 0; i < 19; ++i) ASSERT_TRUE(std::isfinite(f.out.view().row(r)[i])) << r << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, KvCodesIsaTest,
                         ::testing::ValuesIn(AvailableKernelSets().begin(), AvailableKernelSets().end()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace kvasir
