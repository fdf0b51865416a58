#include "kv/prefix_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kBlock = 2;
using Tokens = std::vector<int32_t>;

uint64_t Constant(std::span<const int32_t>) { return 42; }

std::vector<BlockId> Names(const std::vector<PrefixTree::Node*>& path) {
  std::vector<BlockId> names;
  for (const PrefixTree::Node* node : path) names.push_back(node->blocks[0]);
  return names;
}

/// Adds what is not known of `tokens` in blocks named next, next + 1, …
void Insert(PrefixTree& tree, std::string_view scope, const Tokens& tokens, BlockId next) {
  auto path = tree.Find(scope, tokens);
  while (static_cast<int64_t>(tokens.size()) >= static_cast<int64_t>(path.size() + 1) * kBlock) {
    const auto block = std::span(tokens).subspan(path.size() * kBlock, kBlock);
    path.push_back(tree.Add(scope, path.empty() ? nullptr : path.back(), block, {next, next + 1000}));
    ++next;
  }
  tree.Touch(path);
}

class PrefixTreeTest : public ::testing::TestWithParam<PrefixTree::Hash> {};

TEST_P(PrefixTreeTest, FindsTheLongestPrefixOfWholeBlocks) {
  PrefixTree tree(kBlock, GetParam());
  Insert(tree, "", {1, 2, 3, 4, 5, 6}, 10);
  Insert(tree, "", {1, 2, 7, 8, 9}, 20);  // the 9 is no whole block
  EXPECT_EQ(tree.size(), 4);
  EXPECT_THAT(Names(tree.Find("", Tokens{1, 2, 3, 4, 5, 6, 7, 8})), ElementsAre(10, 11, 12));
  EXPECT_THAT(Names(tree.Find("", Tokens{1, 2, 7, 8, 9, 9})), ElementsAre(10, 20));
  EXPECT_THAT(Names(tree.Find("", Tokens{1, 2, 7})), ElementsAre(10));
  EXPECT_THAT(tree.Find("", Tokens{1}), IsEmpty());
  EXPECT_THAT(tree.Find("", Tokens{}), IsEmpty());
  EXPECT_THAT(tree.Find("", Tokens{2, 1, 3, 4}), IsEmpty());
  EXPECT_THAT(tree.Find("", Tokens{3, 4, 5, 6}), IsEmpty());  // known, but not at the beginning
  EXPECT_THAT(tree.NodeOf(11)->blocks, ElementsAre(11, 1011));
  EXPECT_EQ(tree.NodeOf(1011), nullptr);
}

TEST_P(PrefixTreeTest, ScopesShareNothing) {
  PrefixTree tree(kBlock, GetParam());
  Insert(tree, "a", {1, 2}, 1);
  Insert(tree, std::string_view("a\0b", 3), {1, 2}, 2);
  EXPECT_THAT(tree.Find("", Tokens{1, 2}), IsEmpty());
  EXPECT_THAT(Names(tree.Find("a", Tokens{1, 2})), ElementsAre(1));
  EXPECT_THAT(Names(tree.Find(std::string_view("a\0b", 3), Tokens{1, 2})), ElementsAre(2));
}

TEST_P(PrefixTreeTest, TheOldestGoFirstAndLeavesBeforeWhatTheyHangOn) {
  PrefixTree tree(kBlock, GetParam());
  std::vector<BlockId> gone;
  const auto all = [](const PrefixTree::Node&) { return true; };
  const auto note = [&](const PrefixTree::Node& node) { gone.push_back(node.blocks[0]); };
  Insert(tree, "", {1, 1, 2, 2, 3, 3}, 10);
  Insert(tree, "x", {1, 1}, 20);
  Insert(tree, "", {1, 1, 4, 4}, 30);  // uses 10 again, but not 11 and 12
  tree.RemoveOldest(2, all, note);
  EXPECT_THAT(gone, ElementsAre(12, 11));
  tree.Touch(tree.Find("x", Tokens{1, 1}));
  tree.RemoveOldest(2, all, note);
  EXPECT_THAT(gone, ElementsAre(12, 11, 30, 10));
  EXPECT_EQ(tree.size(), 1);
  tree.RemoveOldest(1, all, note);
  EXPECT_EQ(tree.size(), 0);
  EXPECT_THAT(tree.Find("x", Tokens{1, 1}), IsEmpty());
  Insert(tree, "x", {1, 1}, 20);
  EXPECT_EQ(tree.size(), 1);
}

TEST_P(PrefixTreeTest, OnlyUnusedNodesCountAndTakeAllBelowWithThem) {
  PrefixTree tree(kBlock, GetParam());
  std::vector<BlockId> gone;
  const auto note = [&](const PrefixTree::Node& node) { gone.push_back(node.blocks[0]); };
  Insert(tree, "", {1, 1, 2, 2, 3, 3}, 10);
  Insert(tree, "", {5, 5, 6, 6}, 20);
  const auto unused = [](const PrefixTree::Node& node) { return node.blocks[0] == 10 || node.blocks[0] == 21; };
  EXPECT_EQ(tree.CountUnused(5, unused), 2);
  EXPECT_EQ(tree.CountUnused(1, unused), 1);
  tree.RemoveOldest(2, unused, note);
  EXPECT_THAT(gone, ElementsAre(12, 11, 10, 21));
  EXPECT_THAT(Names(tree.Find("", Tokens{5, 5, 6, 6})), ElementsAre(20));
}

TEST_P(PrefixTreeTest, AVeryLongTextIsNoDeepRecursion) {
  PrefixTree tree(kBlock, GetParam());
  std::vector<int32_t> tokens(400'000);
  std::iota(tokens.begin(), tokens.end(), 0);
  Insert(tree, "", tokens, 0);
  EXPECT_EQ(tree.Find("", tokens).size(), tokens.size() / kBlock);
  int64_t gone = 0;
  tree.Remove(tree.NodeOf(1), [&](const PrefixTree::Node&) { ++gone; });
  EXPECT_EQ(gone, 199'999);
  EXPECT_EQ(tree.size(), 1);
}

INSTANTIATE_TEST_SUITE_P(Hashes, PrefixTreeTest, ::testing::Values(PrefixTree::Hash{}, Constant),
                         [](const auto& test) { return test.param == nullptr ? "own" : "constant"; });

}  // namespace
}  // namespace kvasir
