// Trees of new tokens: how guesses at several continuations are verified in one forward pass (D2, D4).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/views.h"

namespace kvasir {

/// Of each token, how many tokens of the pass stand before it on its path. parents: offsets of the tokens' parents,
/// each less than its own; -1: the text before the pass.
std::vector<int32_t> TokenDepths(std::span<const int32_t> parents);

/// One sequence's tree as kernels read it.
struct SequenceTree {
  std::vector<int32_t> positions;
  std::vector<uint64_t> ancestors;

  /// Points into the vectors: valid until they, wherever they are moved, are changed or destroyed.
  TokenTree View() const;
};

/// parents: as above; first_position: of a token whose parent is -1.
SequenceTree MakeSequenceTree(std::span<const int32_t> parents, int64_t first_position);

}  // namespace kvasir
