// States of attention in memory, for those who plan attention.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/checked.h"
#include "kernels/attention_kernels.h"

namespace kvasir {

/// The state that lies at `memory`, AttentionStateFloats of it, 64-byte aligned.
inline AttentionState StateAt(float* memory, int64_t rows, int64_t head_dim) {
  return {memory, memory + rows, memory + RoundUp(2 * rows, 16), AttentionStateStride(head_dim)};
}

/// Rows that have seen nothing.
inline void ClearState(const AttentionState& state, int64_t rows) {
  std::fill(state.max, state.max + rows, 0.0f);
  std::fill(state.sum, state.sum + rows, 0.0f);
}

}  // namespace kvasir
