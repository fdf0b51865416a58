// Atrous, local and sparse attention: equal to the definition with the same mask, to the bit in any company, and what
// the mask leaves out is not touched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/attention_test_util.h"
#include "kernels/kernel_set.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

using testing::Case;
using testing::Describe;
using testing::kKvTypes;
using testing::Sequence;

class AttentionPatternTest : public testing::AttentionTestBase {};

TEST_P(AttentionPatternTest, EveryStrideLengthAndTail) {
  for (KvType type : kKvTypes) {
    for (int64_t stride : {2, 3, 16, 37, 64}) {
      for (int64_t local : {int64_t{0}, int64_t{1}, stride, int64_t{50}}) {
        for (int64_t length : {1, 2, 15, 17, 64, 65, 129}) {
          Check({.type = type, .length = length, .tokens = length, .stride = stride, .local = local}, 2);
          Check({.type = type, .length = length, .tokens = 1, .group = 3, .stride = stride, .local = local});
        }
      }
    }
  }
}

TEST_P(AttentionPatternTest, ManyChunksOfAClass) {
  for (KvType type : kKvTypes) {
    for (int64_t local : {0, 1, 2, 300}) {
      const Case c = {.type = type, .length = 1100, .tokens = slow() ? 5 : 1100, .stride = 2, .local = local};
      Check(c, 2);
      Check({.type = type, .length = 3300, .tokens = 1, .group = 5, .stride = 3, .local = local}, 2);
    }
  }
}

TEST_P(AttentionPatternTest, EveryHeadSizeAndGroup) {
  for (KvType type : kKvTypes) {
    for (int32_t d : {1, 2, 3, 15, 16, 17, 31, 32, 33, 35, 64, 80, 127, 128, 256, 511, 512}) {
      Check({.type = type, .length = 75, .tokens = 75, .kv_heads = 2, .head_dim = d, .stride = 4, .local = 4});
      Check({.type = type, .length = 75, .tokens = 1, .kv_heads = 2, .group = 2, .head_dim = d, .stride = 3});
    }
    for (int32_t group : {2, 7, 16, 49, 71}) {
      for (int64_t local : {0, 6}) {
        Check({.type = type, .length = 60, .tokens = 60, .kv_heads = 2, .group = group, .stride = 6, .local = local});
      }
    }
    Check({.type = type, .length = 400, .tokens = slow() ? 3 : 400, .group = 3, .stride = 2, .local = 9}, 2);
  }
}

TEST_P(AttentionPatternTest, WindowsOfLayersAndCachesStillCount) {
  for (KvType type : kKvTypes) {
    for (int64_t tokens : {int64_t{1}, slow() ? int64_t{4} : int64_t{400}}) {
      for (int64_t local : {0, 20}) {
        for (int64_t window : {1, 15, 21, 100, 350, 1000}) {
          Check({.type = type, .length = 400, .tokens = tokens, .window = window, .stride = 5, .local = local}, 2);
        }
        for (int64_t first : {3, 17, 390}) {
          Check({.type = type, .length = 400, .tokens = tokens, .first_valid = first, .stride = 5, .local = local});
        }
        for (int64_t least : {1, 5, 12, 399, 5000}) {
          Case c = {.type = type, .length = 400, .tokens = tokens, .stride = 5, .local = local, .min_distance = least};
          Check(c);
          c.window = 90;
          Check(c);
        }
      }
      Check({.type = type, .length = 400, .tokens = tokens, .min_distance = 33}, 2);
      Check({.type = type, .length = 700, .tokens = tokens, .window = 300, .min_distance = 33}, 2);
    }
  }
}

// The strided and the local part of sparse attention form biases from the same positions.
TEST_P(AttentionPatternTest, SoftcapAndAlibi) {
  for (KvType type : kKvTypes) {
    for (int64_t tokens : {int64_t{1}, int64_t{60}}) {
      for (int64_t local : {0, 7}) {
        const Case c = {.type = type, .length = 600, .tokens = tokens, .group = 4, .stride = 7, .local = local};
        Case softcap = c;
        softcap.softcap = 5.0f;
        Check(softcap);
        Case alibi = c;
        alibi.alibi = true;
        Check(alibi);
        alibi.alibi_bf16 = true;
        Check(alibi);
        alibi.window = 200;
        alibi.softcap = 3.0f;
        Check(alibi, 2);
      }
    }
  }
}

TEST_P(AttentionPatternTest, BitsDoNotDependOnCompany) {
  for (KvType type : kKvTypes) {
    for (const Case& shape :
         {Case{.type = type, .length = 1100, .kv_heads = 2, .head_dim = 40, .stride = 2},
          Case{.type = type, .length = 530, .kv_heads = 2, .group = 7, .head_dim = 64, .stride = 24, .local = 24},
          Case{.type = type, .length = 1300, .head_dim = 8, .stride = 2, .local = 900},
          Case{.type = type, .length = 600, .group = 4, .head_dim = 19, .window = 70, .alibi = true, .stride = 5}}) {
      Case c = shape;
      if (slow()) c.length = c.length > 1000 ? 530 : 90;
      Sequence sequence(c, *GetParam(), 3);
      const auto clear = [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) std::fill_n(sequence.out().row(r), sequence.width(), -1.0f);
      };
      const AttentionArgs whole = sequence.Args(0, c.length, c.length);
      ASSERT_TRUE(Run(1, {&whole, 1}).ok());
      const auto expected = sequence.Bits(0, c.length);

      std::mt19937 rng(4);
      for (int threads : {1, 2, 3}) {
        for (int64_t begin = 0; begin < c.length;) {
          const int64_t most = 1 + static_cast<int64_t>(rng() % 3) * static_cast<int64_t>(rng() % 60);
          const int64_t end = std::min(c.length, begin + most);
          clear(begin, end);
          const AttentionArgs piece = sequence.Args(begin, end, end);
          ASSERT_TRUE(Run(threads, {&piece, 1}).ok());
          begin = end;
        }
        ASSERT_EQ(sequence.Bits(0, c.length), expected) << Describe(c) << " threads " << threads;
      }

      Sequence dense({.type = type, .length = 300, .kv_heads = 3, .group = 2, .head_dim = 33}, *GetParam(), 5);
      Sequence other({.type = type, .length = 700, .tokens = 1, .group = 5, .head_dim = 128, .stride = 9, .local = 3},
                     *GetParam(), 6);
      clear(0, c.length);
      const int64_t cut = c.length / 3;
      const AttentionArgs batch[] = {other.Args(), sequence.Args(cut, c.length, c.length), dense.Args(0, 300, 300),
                                     sequence.Args(0, cut, c.length)};
      ASSERT_TRUE(Run(2, batch).ok());
      ASSERT_EQ(sequence.Bits(0, c.length), expected) << Describe(c) << " in a batch";
    }
  }
}

TEST_P(AttentionPatternTest, ALocalPartThatHoldsEverythingIsFullAttention) {
  for (KvType type : kKvTypes) {
    Sequence sequence({.type = type, .length = 600, .tokens = 20, .group = 2}, *GetParam(), 7);
    AttentionArgs args = sequence.Args();
    ASSERT_TRUE(Run(2, {&args, 1}).ok());
    const auto full = sequence.Bits(580, 600);
    for (const auto& [stride, local] : {std::pair<int64_t, int64_t>{1, 0}, {1, 5}, {3, 599}, {1000, 600}}) {
      args.stride = stride;
      args.local = local;
      ASSERT_TRUE(Run(2, {&args, 1}).ok());
      EXPECT_EQ(sequence.Bits(580, 600), full) << stride << " " << local;
    }
    // A window of k + 1 is local attention up to distance k; no multiple of the stride lies within the window beyond.
    args.stride = 0;
    args.window = 41;
    ASSERT_TRUE(Run(2, {&args, 1}).ok());
    const auto local = sequence.Bits(580, 600);
    args.window = 45;
    args.stride = 50;
    args.local = 40;
    ASSERT_TRUE(Run(2, {&args, 1}).ok());
    EXPECT_EQ(sequence.Bits(580, 600), local);
  }
}

TEST_P(AttentionPatternTest, PlainAttentionAgrees) {
  for (const Case& c :
       {Case{.length = 90, .tokens = 90, .kv_heads = 2, .group = 3, .head_dim = 64, .stride = 8},
        Case{.length = 90, .tokens = 90, .kv_heads = 3, .head_dim = 20, .window = 9},
        Case{.length = 600, .tokens = 3, .group = 4, .head_dim = 20, .softcap = 9.0f, .stride = 16, .local = 16},
        Case{.length = 300, .tokens = 20, .group = 4, .head_dim = 32, .alibi = true, .stride = 3, .local = 30},
        Case{.length = 80, .tokens = 20, .kv_heads = 2, .head_dim = 7, .first_valid = 33, .stride = 2},
        Case{.type = KvType::kF16, .length = 300, .tokens = 20, .group = 4, .head_dim = 32, .stride = 6, .local = 2}}) {
    Sequence sequence(c, *GetParam(), 7);
    const AttentionArgs args = sequence.Args();
    ASSERT_TRUE(Run(2, {&args, 1}).ok());
    std::vector<float> tiled;
    for (int64_t r = 0; r < c.tokens; ++r) tiled.insert(tiled.end(), args.out.row(r), args.out.row(r) + args.out.cols);
    testing::TestContext context(GetParam());
    ASSERT_TRUE(AttentionPlain(context.ctx, {&args, 1}).ok());
    for (int64_t r = 0; r < c.tokens; ++r) {
      for (int64_t i = 0; i < args.out.cols; ++i) {
        ASSERT_NEAR(args.out.row(r)[i], tiled[static_cast<size_t>(r * args.out.cols + i)], 5e-5f) << Describe(c);
      }
    }
  }
}

// Whatever lies in keys and values of other residue classes: it is not multiplied, not even by 0.
TEST_P(AttentionPatternTest, SkippedPairsAreNotComputed) {
  for (KvType type : kKvTypes) {
    for (int64_t length : {200, 1200}) {
      Sequence sequence({.type = type, .length = length, .tokens = 1, .group = 2, .stride = 11}, *GetParam(), 8);
      const AttentionArgs args = sequence.Args();
      ASSERT_TRUE(Run(1, {&args, 1}).ok());
      const auto expected = sequence.Bits(length - 1, length);
      for (int64_t slot = 0; slot < length - 1; ++slot) {
        if ((length - 1 - slot) % 11 == 0) continue;
        std::fill_n(sequence.k().row(slot), 16, std::numeric_limits<float>::quiet_NaN());
        std::fill_n(sequence.v().row(slot), 16, std::numeric_limits<float>::quiet_NaN());
      }
      testing::TestContext context(GetParam());
      const KvWrite write{sequence.k(), sequence.v(), sequence.cache().View(length), 0};
      WriteKv(context.ctx, {&write, 1});
      ASSERT_TRUE(Run(1, {&args, 1}).ok());
      EXPECT_EQ(sequence.Bits(length - 1, length), expected);
    }
  }
}

TEST_P(AttentionPatternTest, BlocksBeforeTheFirstValidSlotMayBeGone) {
  Sequence sequence({.length = 400, .tokens = 30, .first_valid = 250, .stride = 7, .local = 12}, *GetParam(), 9);
  AttentionArgs args = sequence.Args();
  const int64_t slots = args.kv.block_tiles * kTileTokens;
  std::vector<std::byte*> blocks(args.kv.blocks, args.kv.blocks + CeilDiv(400, slots));
  for (int64_t b = 0; (b + 1) * slots <= 250; ++b) blocks[static_cast<size_t>(b)] = nullptr;
  args.kv.blocks = blocks.data();
  ASSERT_TRUE(Run(2, {&args, 1}).ok());
  args.kv = sequence.Args().kv;
  ExpectDefinition(args, "blocks gone");
}

TEST_P(AttentionPatternTest, RefusesWhatItCannotDo) {
  Sequence sequence({.length = 20, .tokens = 4, .stride = 3}, *GetParam(), 10);
  sequence.SetPositions(std::vector<int32_t>(20, 1));
  AttentionArgs args = sequence.Args();
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kUnsupported);
  args.kv.positions = nullptr;
  EXPECT_TRUE(Run(1, {&args, 1}).ok());
  for (int64_t AttentionArgs::* field : {&AttentionArgs::stride, &AttentionArgs::local, &AttentionArgs::min_distance}) {
    for (int64_t value : {int64_t{-1}, int64_t{1} << 40}) {
      AttentionArgs bad = args;
      bad.*field = value;
      EXPECT_EQ(Run(1, {&bad, 1}).code(), StatusCode::kInvalidArgument);
    }
  }
  args = sequence.Args(4, 4, 20);
  args.kv.positions = nullptr;
  EXPECT_TRUE(Run(2, {&args, 1}).ok());
}

TEST_P(AttentionPatternTest, CountsPairsThatAreSeen) {
  for (const Case& c :
       {Case{.length = 100, .tokens = 60, .stride = 7}, Case{.length = 100, .tokens = 100, .window = 30},
        Case{.length = 100, .tokens = 100, .stride = 7, .local = 10},
        Case{.length = 100, .tokens = 9, .window = 40, .first_valid = 50, .stride = 3, .local = 3},
        Case{.length = 100, .tokens = 99, .stride = 4, .local = 9, .min_distance = 6},
        Case{.length = 100, .tokens = 99, .window = 7, .stride = 4, .local = 9, .min_distance = 13},
        Case{.length = 100, .tokens = 1, .stride = 10}}) {
    Sequence sequence(c, *GetParam(), 11);
    testing::TestContext context(GetParam());
    const AttentionArgs args = sequence.Args();
    ASSERT_TRUE(Attention(context.ctx, {&args, 1}).ok());
    int64_t pairs = 0;
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t slot = c.first_valid; slot < c.length; ++slot) pairs += ref::Sees(args, t, slot) ? 1 : 0;
    }
    EXPECT_EQ(context.ctx.counters.attention_flops, pairs * 4 * 16) << Describe(c);
    if (c.tokens > 1) continue;
    EXPECT_EQ(context.ctx.counters.kv_bytes, pairs * 2 * 16 * 4);
  }
}

TEST_P(AttentionPatternTest, ProbabilitiesAreWhatValuesAreMixedBy) {
  for (const Case& c : {Case{.length = 40, .tokens = 40, .kv_heads = 2, .group = 2},
                        Case{.length = 90, .tokens = 5, .kv_heads = 2, .group = 2, .first_valid = 30, .stride = 4},
                        Case{.type = KvType::kI8, .length = 60, .tokens = 9, .kv_heads = 2, .group = 2, .window = 7}}) {
    Sequence sequence(c, *GetParam(), 12);
    const AttentionArgs args = sequence.Args();
    testing::TestContext context(GetParam());
    const std::vector<double> expected = testing::DefineAttention(args);
    testing::Misaligned p(c.tokens, c.length);
    for (int64_t h = 0; h < args.n_heads; ++h) {
      ASSERT_TRUE(AttentionProbabilities(context.ctx, args, h, p.view()).ok());
      for (int64_t t = 0; t < c.tokens; ++t) {
        double sum = 0;
        std::vector<double> mixed(16);
        for (int64_t slot = 0; slot < c.length; ++slot) {
          const float weight = p.view().row(t)[slot];
          EXPECT_EQ(weight > 0.0f, slot >= c.first_valid && ref::Sees(args, t, slot));
          sum += double{weight};
          for (int64_t i = 0; i < 16; ++i) {
            mixed[static_cast<size_t>(i)] += double{weight} * double{ref::ValueAt(args.kv, h / 2, slot, i)};
          }
        }
        EXPECT_NEAR(sum, 1.0, 1e-5);
        for (int64_t i = 0; i < 16; ++i) {
          EXPECT_NEAR(mixed[static_cast<size_t>(i)], expected[static_cast<size_t>(t * args.q.cols + h * 16 + i)], 1e-5);
        }
      }
      EXPECT_TRUE(p.Intact());
    }
    EXPECT_EQ(AttentionProbabilities(context.ctx, args, 4, p.view()).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(AttentionProbabilities(context.ctx, args, 0, p.view().Cols(0, 3)).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(context.arena.GetMark().used, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionPatternTest,
                         ::testing::ValuesIn(AvailableKernelSets().begin(), AvailableKernelSets().end()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace kvasir
