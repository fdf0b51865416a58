#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "kernels/attention_test_util.h"
#include "kernels/kernel_set.h"

namespace kvasir {
namespace {

using testing::Case;
using testing::Describe;
using testing::Floats;
using testing::kKvTypes;
using testing::Sequence;
using testing::TestCache;

class AttentionTest : public testing::AttentionTestBase {};

constexpr KvType kFloatTypes[] = {KvType::kF32, KvType::kBF16, KvType::kF16};

TEST_P(AttentionTest, EveryLengthAndTail) {
  for (KvType type : kKvTypes) {
    for (int64_t length = 1; length <= 70; ++length) Check({.type = type, .length = length, .tokens = length});
    for (int64_t length : {511, 512, 513, 514, 1025}) {
      Check({.type = type, .length = length, .tokens = 1, .group = 3}, 2);
      Check({.type = type, .length = length, .tokens = slow() ? 20 : length, .head_dim = 24}, 2);
    }
  }
}

TEST_P(AttentionTest, EveryHeadSize) {
  std::vector<int32_t> sizes(20);
  std::iota(sizes.begin(), sizes.end(), 1);
  for (int32_t d : {33, 64, 80, 96, 127, 128, 256, 511, 512}) sizes.push_back(d);
  for (KvType type : kKvTypes) {
    for (int32_t d : sizes) {
      Check({.type = type, .length = 37, .tokens = 37, .kv_heads = 2, .head_dim = d});
      Check({.type = type, .length = 37, .tokens = 1, .kv_heads = 2, .group = 2, .head_dim = d});
    }
  }
}

TEST_P(AttentionTest, EveryGroupOfHeads) {
  for (KvType type : kKvTypes) {
    for (int32_t group = 1; group <= 17; ++group) {
      for (int64_t tokens : {1, 2, 5}) {
        Check({.type = type, .length = 50, .tokens = tokens, .kv_heads = 2, .group = group});
      }
    }
    Check({.type = type, .length = 40, .tokens = 40, .kv_heads = 1, .group = 71});
  }
}

TEST_P(AttentionTest, Windows) {
  for (KvType type : kKvTypes) {
    for (int64_t window : {1, 2, 15, 16, 17, 31, 100, 511, 512, 513, 2000}) {
      Check({.type = type, .length = 700, .tokens = slow() ? 5 : 700, .window = window}, 2);
      Check({.type = type, .length = 1300, .tokens = 1, .group = 2, .window = window}, 2);
    }
    for (int64_t first : {1, 16, 17, 512, 600}) {
      Check({.type = type, .length = 640, .tokens = 20, .first_valid = first}, 2);
      Check({.type = type, .length = 640, .tokens = 1, .window = 50, .first_valid = first}, 2);
    }
  }
}

TEST_P(AttentionTest, SoftcapAndAlibi) {
  for (KvType type : kKvTypes) {
    for (int64_t tokens : {int64_t{1}, int64_t{60}}) {
      Check({.type = type, .length = 600, .tokens = tokens, .group = 4, .softcap = 5.0f});
      Check({.type = type, .length = 600, .tokens = tokens, .group = 4, .softcap = 50.0f, .scale = 0.02f});
      Check({.type = type, .length = 600, .tokens = tokens, .group = 4, .alibi = true});
      Check({.type = type, .length = 600, .tokens = tokens, .group = 4, .alibi = true, .alibi_bf16 = true});
      Check({.type = type, .length = 600, .tokens = tokens, .group = 2, .window = 40, .softcap = 3.0f, .alibi = true});
      Check({.type = type, .length = 600, .tokens = tokens, .scale = -0.3f});
    }
  }
}

TEST_P(AttentionTest, PositionsDecideWhatIsSeen) {
  for (KvType type : kKvTypes) {
    const Case c{.type = type, .length = 1100, .tokens = 30, .kv_heads = 2, .group = 2, .window = 300, .alibi = true};
    Sequence sequence(c, *GetParam(), 2);
    // A ring: the oldest slot is in the middle, some slots are empty, and the last ones hold the newest tokens.
    std::vector<int32_t> positions(1100);
    for (int i = 0; i < 1100; ++i) positions[static_cast<size_t>(i)] = (i + 450) % 1070;
    for (int i = 0; i < 1100; i += 7) positions[static_cast<size_t>(i)] = -1;
    for (int i = 1070; i < 1100; ++i) positions[static_cast<size_t>(i)] = i;
    sequence.SetPositions(positions);
    for (int threads : {1, 2}) {
      const AttentionArgs args = sequence.Args();
      ASSERT_TRUE(Run(threads, {&args, 1}).ok());
      ExpectDefinition(args, Describe(c));
    }
  }
}

// A ring: queries in slots before and behind those of older tokens, the first slots kept for ever, one slot empty.
TEST_P(AttentionTest, TheOrderOfSlotsIsNotThatOfPositions) {
  constexpr int kSinks = 3;
  constexpr int kSlots = 700;
  for (KvType type : kKvTypes) {
    for (const bool alibi : {false, true}) {
      for (const int64_t window : {0, 250}) {
        const Case c{.type = type,
                     .length = kSlots,
                     .kv_heads = 2,
                     .group = 3,
                     .head_dim = 24,
                     .window = window,
                     .alibi = alibi};
        Sequence sequence(c, *GetParam(), 4);
        constexpr int kNewest = 40;  // the slot of the newest token
        std::vector<int32_t> positions(kSlots);
        for (int i = 0; i < kSinks; ++i) positions[static_cast<size_t>(i)] = i;
        for (int i = kSinks; i < kSlots; ++i) {
          const int age = (kNewest - i + kSlots - kSinks) % (kSlots - kSinks);
          positions[static_cast<size_t>(i)] = kSlots - 1 - age;
        }
        positions[300] = -1;
        sequence.SetPositions(positions);
        // A pass of tokens that the end of the ring cuts in two.
        for (const auto& [begin, end] : {std::pair{690, kSlots}, std::pair{kSinks, kNewest + 1}}) {
          for (int threads : {1, 2}) {
            const AttentionArgs args = sequence.Args(begin, end, kSlots);
            ASSERT_TRUE(Run(threads, {&args, 1}).ok());
            ExpectDefinition(args, Describe(c));
          }
        }
      }
    }
  }
}

// As keys that are rotated anew are.
TEST_P(AttentionTest, KeysAreWrittenWithoutValues) {
  std::mt19937 rng(11);
  for (KvType type : kKvTypes) {
    for (const int32_t d : {8, 33, 64}) {
      TestCache cache(type, 2, d, 2, 64);
      TestCache expected(type, 2, d, 2, 64);
      Floats k(64, 2 * d, 2 * d + 1, 1), other(64, 2 * d, 2 * d + 3, 2), v(64, 2 * d, 2 * d + 1, 3);
      k.Fill(rng, 1.0f);
      other.Fill(rng, 1.0f);
      v.Fill(rng, 1.0f);
      ThreadPool pool(2);
      ExecContext ctx{&pool, &arena_, GetParam(), {}};
      const auto write = [&](const TestCache& into, MatView<float> keys, MatView<float> values, int64_t first) {
        const KvWrite one{keys, values, into.View(64), first};
        WriteKv(ctx, {&one, 1});
      };
      write(cache, k.view(), v.view(), 0);
      write(cache, other.view().Rows(5, 30), {}, 5);
      write(expected, k.view(), v.view(), 0);
      write(expected, other.view().Rows(5, 30), v.view().Rows(5, 30), 5);
      const KvView a = cache.View(64);
      const KvView b = expected.View(64);
      for (int64_t block = 0; block < 2; ++block) {
        EXPECT_EQ(std::memcmp(a.blocks[block], b.blocks[block], static_cast<size_t>(a.head_stride * 2)), 0);
      }
    }
  }
}

TEST_P(AttentionTest, RowsThatSeeNothingAreZero) {
  Sequence sequence({.length = 20, .tokens = 2}, *GetParam(), 2);
  std::vector<int32_t> positions(20, 5);
  positions[18] = 3;
  positions[19] = 6;
  sequence.SetPositions(positions);
  const AttentionArgs args = sequence.Args(18, 20, 20);
  AttentionArgs hidden = args;
  hidden.kv.first_valid = 19;
  ASSERT_TRUE(Run(1, {&hidden, 1}).ok());
  for (int64_t c = 0; c < 16; ++c) EXPECT_EQ(sequence.out().row(18)[c], 0.0f);
  EXPECT_NE(sequence.out().row(19)[0], 0.0f);
}

// The same bits alone and in a batch, at once and token by token, in any pieces, for any number of threads.
TEST_P(AttentionTest, BitsDoNotDependOnCompany) {
  for (KvType type : kKvTypes) {
    for (const Case& shape : {Case{.type = type, .length = 1100, .kv_heads = 2, .group = 1, .head_dim = 40},
                              Case{.type = type, .length = 530, .kv_heads = 2, .group = 7, .head_dim = 64},
                              Case{.type = type,
                                   .length = 600,
                                   .kv_heads = 1,
                                   .group = 4,
                                   .head_dim = 19,
                                   .window = 70,
                                   .softcap = 4.0f,
                                   .alibi = true}}) {
      Case c = shape;
      if (slow()) c.length = c.length > 1000 ? 530 : 90;
      Sequence sequence(c, *GetParam(), 3);
      const AttentionArgs whole = sequence.Args(0, c.length, c.length);
      ASSERT_TRUE(Run(1, {&whole, 1}).ok());
      const auto expected = sequence.Bits(0, c.length);

      std::mt19937 rng(4);
      for (int threads : {1, 2, 3}) {
        // Pieces of any size, each seeing only what has been written by then.
        for (int64_t begin = 0; begin < c.length;) {
          const int64_t most = 1 + static_cast<int64_t>(rng() % 3) * static_cast<int64_t>(rng() % 60);
          const int64_t end = std::min(c.length, begin + most);
          for (int64_t r = begin; r < end; ++r) std::fill_n(sequence.out().row(r), sequence.width(), -1.0f);
          const AttentionArgs piece = sequence.Args(begin, end, end);
          ASSERT_TRUE(Run(threads, {&piece, 1}).ok());
          begin = end;
        }
        ASSERT_EQ(sequence.Bits(0, c.length), expected) << Describe(c) << " threads " << threads;
      }

      // Among others, as one batch of decoding and prefilling sequences.
      Sequence other({.type = type, .length = 300, .kv_heads = 3, .group = 2, .head_dim = 33}, *GetParam(), 5);
      Sequence third({.type = type, .length = 700, .tokens = 1, .kv_heads = 1, .group = 5, .head_dim = 128},
                     *GetParam(), 6);
      for (int64_t r = 0; r < c.length; ++r) std::fill_n(sequence.out().row(r), sequence.width(), -1.0f);
      const int64_t cut = c.length / 3;
      const AttentionArgs batch[] = {third.Args(), sequence.Args(cut, c.length, c.length), other.Args(0, 300, 300),
                                     sequence.Args(0, cut, c.length)};
      ASSERT_TRUE(Run(2, batch).ok());
      ASSERT_EQ(sequence.Bits(0, c.length), expected) << Describe(c) << " in a batch";
    }
  }
}

TEST_P(AttentionTest, PlainAttentionAgrees) {
  for (const Case& c : {Case{.length = 90, .tokens = 90, .kv_heads = 2, .group = 3, .head_dim = 64},
                        Case{.length = 600, .tokens = 3, .group = 4, .head_dim = 20, .window = 200, .softcap = 9.0f},
                        Case{.length = 300, .tokens = 20, .group = 4, .head_dim = 32, .alibi = true},
                        Case{.length = 80, .tokens = 20, .kv_heads = 2, .head_dim = 7, .first_valid = 33},
                        Case{.type = KvType::kF16, .length = 300, .tokens = 20, .group = 4, .head_dim = 32}}) {
    Sequence sequence(c, *GetParam(), 7);
    const AttentionArgs args = sequence.Args();
    ASSERT_TRUE(Run(2, {&args, 1}).ok());
    std::vector<float> tiled;
    float largest = 0;
    for (int64_t r = 0; r < c.tokens; ++r) {
      for (int64_t i = 0; i < args.out.cols; ++i) {
        tiled.push_back(args.out.row(r)[i]);
        largest = std::max(largest, std::abs(tiled.back()));
        args.out.row(r)[i] = 0;
      }
    }
    ThreadPool pool(2);
    ExecContext ctx{&pool, &arena_, GetParam(), {}};
    ASSERT_TRUE(AttentionPlain(ctx, {&args, 1}).ok());
    for (int64_t r = 0; r < c.tokens; ++r) {
      for (int64_t i = 0; i < args.out.cols; ++i) {
        ASSERT_NEAR(args.out.row(r)[i], tiled[static_cast<size_t>(r * args.out.cols + i)], 2e-5f * largest);
      }
    }
  }
}

TEST_P(AttentionTest, LargeAndEqualScoresStayFinite) {
  for (KvType type : kKvTypes) {
    Sequence sequence({.type = type, .length = 600, .tokens = 30, .head_dim = 64, .scale = 1000.0f}, *GetParam(), 8);
    const AttentionArgs args = sequence.Args();
    ASSERT_TRUE(Run(2, {&args, 1}).ok());
    for (int64_t r = 0; r < 30; ++r) {
      for (int64_t i = 0; i < 64; ++i) ASSERT_TRUE(std::isfinite(args.out.row(r)[i]));
    }
  }
}

TEST_P(AttentionTest, NanReachesOnlyThoseWhoSeeIt) {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  for (KvType type : kKvTypes) {
    for (float value : bad) {
      Sequence sequence({.type = type, .length = 580, .tokens = 580, .head_dim = 16}, *GetParam(), 9);
      for (int64_t slot : {5, 570}) {
        std::fill_n(sequence.k().row(slot), 16, value);
        for (int64_t i = 0; i < 16; ++i) sequence.q().row(579)[i] = 1.0f;
      }
      ThreadPool pool(1);
      ExecContext ctx{&pool, &arena_, GetParam(), {}};
      const KvWrite write{sequence.k(), sequence.v(), sequence.cache().View(580), 0};
      WriteKv(ctx, {&write, 1});
      const AttentionArgs args = sequence.Args();
      ASSERT_TRUE(Run(2, {&args, 1}).ok());
      for (int64_t i = 0; i < 16; ++i) {
        EXPECT_TRUE(std::isfinite(sequence.out().row(4)[i]));
        EXPECT_TRUE(std::isnan(sequence.out().row(579)[i]));
      }
    }
  }
}

TEST_P(AttentionTest, RefusesWhatItCannotDo) {
  Sequence sequence({.length = 20, .tokens = 4, .kv_heads = 2, .group = 2}, *GetParam(), 10);
  const AttentionArgs good = sequence.Args();
  AttentionArgs args = good;
  args.n_heads = 3;
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kInvalidArgument);
  args = good;
  args.kv.head_dim = 513;
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kUnsupported);
  args = good;
  args.first_slot = 17;
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kInvalidArgument);
  args = good;
  args.out.cols = 63;
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Run(1, {}).ok());
  args = good.q.rows > 0 ? sequence.Args(4, 4, 20) : good;
  EXPECT_TRUE(Run(2, {&args, 1}).ok());
}

TEST_P(AttentionTest, CountsPairsAndBytes) {
  Sequence sequence({.length = 100, .tokens = 100, .kv_heads = 2, .group = 2, .window = 10}, *GetParam(), 11);
  ThreadPool pool(1);
  ExecContext ctx{&pool, &arena_, GetParam(), {}};
  const AttentionArgs args = sequence.Args();
  ASSERT_TRUE(Attention(ctx, {&args, 1}).ok());
  EXPECT_EQ(ctx.counters.attention_flops, (10 * 90 + 55) * 4 * 16 * 4);
  EXPECT_EQ(ctx.counters.kv_bytes, 100 * 2 * 16 * 2 * 4);
}

TEST_P(AttentionTest, WriteRoundsAndScatters) {
  for (KvType type : kFloatTypes) {
    for (int32_t d : {1, 2, 7, 16, 64}) {
      Sequence sequence({.type = type, .length = 100, .kv_heads = 3, .head_dim = d}, *GetParam(), 12);
      TestCache cache(type, 3, d, 2, 100);
      ExecContext ctx{nullptr, &arena_, GetParam(), {}};
      ThreadPool pool(2);
      ctx.pool = &pool;
      // In pieces that end inside tiles, two writes at a time.
      for (int64_t begin = 0; begin < 100; begin += 25) {
        const KvWrite writes[] = {{MatView<const float>(sequence.k()).Rows(begin, 3),
                                   MatView<const float>(sequence.v()).Rows(begin, 3), cache.View(100), begin},
                                  {MatView<const float>(sequence.k()).Rows(begin + 3, 22),
                                   MatView<const float>(sequence.v()).Rows(begin + 3, 22), cache.View(100), begin + 3}};
        WriteKv(ctx, writes);
      }
      const KvView view = cache.View(100);
      const auto rounded = [&](float x) {
        if (type == KvType::kF32) return x;
        return type == KvType::kBF16 ? ToFloat(ToBFloat16(x)) : ToFloat(ToFloat16(x));
      };
      for (int64_t slot = 0; slot < 100; ++slot) {
        for (int64_t h = 0; h < 3; ++h) {
          for (int64_t i = 0; i < d; ++i) {
            ASSERT_EQ(ref::KeyAt(view, h, slot, i), rounded(sequence.k().row(slot)[h * d + i]));
            ASSERT_EQ(ref::ValueAt(view, h, slot, i), rounded(sequence.v().row(slot)[h * d + i]));
          }
        }
      }
      // The layout itself, spelled out.
      const std::byte* k = view.k_tile(2, 1);
      const std::byte* v = view.v_tile(2, 1);
      const int64_t i = d - 1;
      const int64_t k_at = type == KvType::kF32 ? i * 64 + 5 * 4 : i / 2 * 64 + 5 * 4 + i % 2 * 2;
      const int64_t v_at = type == KvType::kF32 ? (5 * d + i) * 4 : (2 * d + i) * 4 + 2;
      EXPECT_EQ(ref::LoadElement(type, k + k_at), rounded(sequence.k().row(21)[2 * d + i]));
      EXPECT_EQ(ref::LoadElement(type, v + v_at), rounded(sequence.v().row(21)[2 * d + i]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest,
                         ::testing::ValuesIn(AvailableKernelSets().begin(), AvailableKernelSets().end()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace kvasir
