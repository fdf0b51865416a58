// Attention of trees of tokens: each token's result is that of its path alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
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
using testing::TestCache;

/// A tree by its parents; -1: the text.
struct Tree {
  Tree(std::vector<int> parents_in, int64_t first_position) : parents(std::move(parents_in)) {
    view.words = static_cast<int32_t>((parents.size() + 63) / 64);
    ancestors.resize(parents.size() * static_cast<size_t>(view.words));
    for (size_t t = 0; t < parents.size(); ++t) {
      int depth = -1;
      for (int at = static_cast<int>(t); at >= 0; at = parents[static_cast<size_t>(at)], ++depth) {
        ancestors[t * static_cast<size_t>(view.words) + static_cast<size_t>(at) / 64] |= uint64_t{1} << at % 64;
      }
      positions.push_back(static_cast<int32_t>(first_position) + depth);
    }
    view.positions = positions.data();
    view.ancestors = ancestors.data();
  }
  std::vector<int64_t> Path(int64_t token) const {
    std::vector<int64_t> path;
    for (int at = static_cast<int>(token); at >= 0; at = parents[static_cast<size_t>(at)])
      path.insert(path.begin(), at);
    return path;
  }

  std::vector<int> parents;
  std::vector<int32_t> positions;
  std::vector<uint64_t> ancestors;
  TokenTree view;
};

std::vector<int> Chain(int64_t tokens) {
  std::vector<int> parents;
  for (int64_t t = 0; t < tokens; ++t) parents.push_back(static_cast<int>(t) - 1);
  return parents;
}

std::vector<int> RandomTree(int64_t tokens, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int> parents;
  for (int64_t t = 0; t < tokens; ++t) {
    parents.push_back(
        std::uniform_int_distribution<int>(std::max<int>(-1, static_cast<int>(t) - 9), static_cast<int>(t) - 1)(rng));
  }
  return parents;
}

class AttentionTreeTest : public testing::AttentionTestBase {
 protected:
  /// What the last of `path`'s tokens gets where the path is all that stands behind the text.
  std::vector<float> AlongPath(const Case& c, Sequence& sequence, int64_t text, const std::vector<int64_t>& path) {
    const auto length = text + static_cast<int64_t>(path.size());
    TestCache cache(c.type, c.kv_heads, c.head_dim, 2, length);
    ThreadPool pool(1);
    ExecContext ctx{&pool, &arena_, GetParam(), {}};
    std::vector<KvWrite> writes;
    writes.push_back({sequence.k().Rows(0, text), sequence.v().Rows(0, text), cache.View(length), 0});
    for (size_t i = 0; i < path.size(); ++i) {
      writes.push_back({sequence.k().Rows(text + path[i], 1), sequence.v().Rows(text + path[i], 1), cache.View(length),
                        text + static_cast<int64_t>(i)});
    }
    if (text == 0) writes.erase(writes.begin());
    WriteKv(ctx, writes);
    std::vector<float> out(static_cast<size_t>(sequence.width()));
    AttentionArgs args = sequence.Args(text + path.back(), text + path.back() + 1, c.length);
    args.kv = cache.View(length);
    args.kv.first_valid = c.first_valid;
    args.first_slot = length - 1;
    args.out = {out.data(), 1, sequence.width()};
    EXPECT_TRUE(Run(1, {&args, 1}).ok());
    return out;
  }

  void CheckTree(Case c, const std::vector<int>& parents, int threads = 1) {
    const auto tokens = static_cast<int64_t>(parents.size());
    const int64_t text = c.length;
    c.length += tokens;
    c.tokens = tokens;
    Sequence sequence(c, *GetParam(), 5);
    const Tree tree(parents, text);
    AttentionArgs args = sequence.Args();
    args.tree = &tree.view;
    ASSERT_TRUE(Run(threads, {&args, 1}).ok());
    // Where a slot lies changes in which order sums are formed, and, across the ends of chunks and runs, by what the
    // rounded weights of bf16 and of codes are divided.
    const float tolerance = c.type == KvType::kBF16 ? 1e-3f : HasCodes(c.type) ? 5e-4f : 5e-6f;
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<float> expected = AlongPath(c, sequence, text, tree.Path(t));
      for (int64_t i = 0; i < sequence.width(); ++i) {
        ASSERT_NEAR(args.out.row(t)[i], expected[static_cast<size_t>(i)], tolerance)
            << Describe(c) << " token " << t << " of " << tokens;
      }
    }
  }
};

TEST_P(AttentionTreeTest, ATokenSeesItsPathOnly) {
  const std::vector<int> siblings = {-1, -1, -1, 0, 0, 1, 2, 3, 3, 5};
  for (KvType type : kKvTypes) {
    for (int64_t text : {0, 1, 15, 16, 30, 500, 511, 520, 1100}) {
      CheckTree({.type = type, .length = text, .kv_heads = 2, .group = 2, .head_dim = 24}, siblings);
    }
    for (int64_t tokens : {1, 2, 16, 17, 63, 64, 65, 130}) {
      CheckTree({.type = type, .length = 37, .group = 3, .head_dim = 16}, RandomTree(tokens, 3), 2);
    }
  }
}

TEST_P(AttentionTreeTest, DistancesAreThoseOfThePath) {
  for (KvType type : kKvTypes) {
    for (int64_t window : {1, 2, 5, 20, 300}) {
      CheckTree({.type = type, .length = 40, .head_dim = 32, .window = window}, RandomTree(70, 7));
      CheckTree({.type = type, .length = 530, .head_dim = 32, .window = window}, RandomTree(20, 8), 2);
    }
    Case c = {.type = type, .length = 45, .group = 4, .head_dim = 16, .alibi = true};
    CheckTree(c, RandomTree(50, 9));
    c.alibi_bf16 = true;
    CheckTree(c, RandomTree(50, 9));
    CheckTree({.type = type, .length = 45, .head_dim = 16, .softcap = 4.0f}, RandomTree(50, 10));
    CheckTree({.type = type, .length = 45, .head_dim = 16, .min_distance = 2}, RandomTree(50, 11));
    CheckTree({.type = type, .length = 45, .head_dim = 16, .first_valid = 20}, RandomTree(50, 12));
  }
}

TEST_P(AttentionTreeTest, AChainIsATextToTheBit) {
  for (KvType type : kKvTypes) {
    for (int64_t tokens : {1, 20, 70}) {
      const Case c = {.type = type, .length = 560, .tokens = tokens, .group = 2, .head_dim = 40, .window = 100};
      Sequence sequence(c, *GetParam(), 5);
      AttentionArgs args = sequence.Args();
      ASSERT_TRUE(Run(2, {&args, 1}).ok());
      const auto expected = sequence.Bits(0, tokens);
      const Tree tree(Chain(tokens), c.length - tokens);
      args.tree = &tree.view;
      ASSERT_TRUE(Run(1, {&args, 1}).ok());
      EXPECT_EQ(sequence.Bits(0, tokens), expected);
    }
  }
}

TEST_P(AttentionTreeTest, PlainAttentionSeesTheSame) {
  for (int64_t stride : {0, 3}) {
    Case c = {.length = 90, .tokens = 30, .group = 2, .head_dim = 20, .window = 50, .stride = stride, .local = 0};
    Sequence sequence(c, *GetParam(), 5);
    const Tree tree(RandomTree(30, 13), 60);
    AttentionArgs args = sequence.Args();
    args.tree = &tree.view;
    ThreadPool pool(2);
    ExecContext ctx{&pool, &arena_, GetParam(), {}};
    ASSERT_TRUE(AttentionPlain(ctx, {&args, 1}).ok());
    for (int64_t t = 0; t < 30; ++t) {
      const std::vector<int64_t> path = tree.Path(t);
      for (int64_t other = 0; other < 30; ++other) {
        const bool on_path = std::ranges::find(path, other) != path.end();
        const int64_t distance = tree.positions[static_cast<size_t>(t)] - tree.positions[static_cast<size_t>(other)];
        const bool sees = on_path && distance < 50 && (stride == 0 || distance % stride == 0);
        EXPECT_EQ(ref::Sees(args, t, 60 + other), sees);
      }
    }
    if (stride > 0) {
      EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kUnsupported);
      continue;
    }
    std::vector<float> plain;
    for (int64_t t = 0; t < 30; ++t) plain.insert(plain.end(), args.out.row(t), args.out.row(t) + sequence.width());
    ASSERT_TRUE(Run(1, {&args, 1}).ok());
    for (int64_t t = 0; t < 30; ++t) {
      for (int64_t i = 0; i < sequence.width(); ++i) {
        EXPECT_NEAR(args.out.row(t)[i], plain[static_cast<size_t>(t * sequence.width() + i)], 5e-6f);
      }
    }
  }
}

TEST_P(AttentionTreeTest, WrongTreesAreRefused) {
  Sequence sequence({.length = 90, .tokens = 70}, *GetParam(), 5);
  Tree tree(Chain(70), 20);
  AttentionArgs args = sequence.Args();
  args.tree = &tree.view;
  tree.view.words = 1;
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kInvalidArgument);
  tree.view.words = 2;
  ++args.kv.length;
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kInvalidArgument);
  --args.kv.length;
  const std::vector<int32_t> positions(90, 0);
  args.kv.positions = positions.data();
  EXPECT_EQ(Run(1, {&args, 1}).code(), StatusCode::kInvalidArgument);
}

TEST_P(AttentionTreeTest, CountsThePathsAlone) {
  Sequence sequence({.length = 13, .tokens = 3, .head_dim = 4}, *GetParam(), 5);
  const Tree tree({-1, -1, 0}, 10);
  AttentionArgs args = sequence.Args();
  args.tree = &tree.view;
  ThreadPool pool(1);
  ExecContext ctx{&pool, &arena_, GetParam(), {}};
  ASSERT_TRUE(Attention(ctx, {&args, 1}).ok());
  EXPECT_EQ(ctx.counters.attention_flops, (11 + 11 + 12) * 4 * 4);
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionTreeTest,
                         ::testing::ValuesIn(AvailableKernelSets().begin(), AvailableKernelSets().end()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace kvasir
