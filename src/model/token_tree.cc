#include "model/token_tree.h"

#include <algorithm>

namespace kvasir {

std::vector<int32_t> TokenDepths(std::span<const int32_t> parents) {
  std::vector<int32_t> depths;
  depths.reserve(parents.size());
  for (const int32_t parent : parents) depths.push_back(parent < 0 ? 0 : depths[static_cast<size_t>(parent)] + 1);
  return depths;
}

TokenTree SequenceTree::View() const {
  const size_t words = positions.empty() ? 0 : ancestors.size() / positions.size();
  return {.positions = positions.data(), .ancestors = ancestors.data(), .words = static_cast<int32_t>(words)};
}

SequenceTree MakeSequenceTree(std::span<const int32_t> parents, int64_t first_position) {
  SequenceTree tree;
  tree.positions = TokenDepths(parents);
  for (int32_t& position : tree.positions) position += static_cast<int32_t>(first_position);
  const size_t words = (parents.size() + 63) / 64;
  tree.ancestors.resize(parents.size() * words);
  for (size_t t = 0; t < parents.size(); ++t) {
    uint64_t* const row = tree.ancestors.data() + t * words;
    if (parents[t] >= 0) std::copy_n(tree.ancestors.data() + static_cast<size_t>(parents[t]) * words, words, row);
    row[t / 64] |= uint64_t{1} << (t % 64);
  }
  return tree;
}

}  // namespace kvasir
