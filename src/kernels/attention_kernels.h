// Attention as tables of functions over raw pointers, one table per instruction set. As kernel_set.h says, only this
// header, views.h and intrinsics enter files compiled for an instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/views.h"

namespace kvasir {

/// KV slots whose softmax is computed from a fresh maximum, sum and accumulator. Chunks begin at absolute multiples of
/// it and merge in ascending order; so it is part of the result's definition, unlike all other block sizes here.
inline constexpr int64_t kChunkSlots = 512;
inline constexpr int64_t kChunkTiles = kChunkSlots / kTileTokens;

/// Most query rows of one task, and of one pass through a chunk of KV.
inline constexpr int kTaskRows = 48;
inline constexpr int kPassRows = 12;
inline constexpr int64_t kMaxHeadDim = 512;

/// Floats between the scores of one query row and those of the next: a chunk and a line, lest the rows share cache
/// sets.
inline constexpr int64_t kScoreStride = kChunkSlots + 16;

/// Consecutive query rows of one KV head of one sequence. Row r is token r / group, query head head·group + r % group.
struct AttentionTask {
  const AttentionArgs* args = nullptr;
  int32_t head = 0;  // KV head
  int32_t rows = 0;  // 1 … kTaskRows
  int64_t row_begin = 0;
};

/// Softmax in progress: of row r, the largest score (in powers of two), the sum of 2^(score - max) and the sum of
/// 2^(score - max) · V. A row whose sum is 0 has seen nothing, and its other values mean nothing.
struct AttentionState {
  float* max = nullptr;  // [rows]
  float* sum = nullptr;  // [rows]
  float* acc = nullptr;  // [rows, stride]
  int64_t stride = 0;    // a multiple of 16
};

inline constexpr int64_t AttentionStateStride(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
/// Floats of one state.
inline constexpr int64_t AttentionStateFloats(int64_t rows, int64_t head_dim) {
  return (2 * rows + 15) / 16 * 16 + rows * AttentionStateStride(head_dim);
}
/// Floats of the scratch that `attend` needs: packed queries, a pass's scores and accumulators, slot positions.
inline constexpr int64_t AttentionScratchFloats(int64_t head_dim) {
  return (kTaskRows + 3 * kPassRows) * AttentionStateStride(head_dim) + kPassRows * kScoreStride + kChunkSlots;
}

struct AttentionKernels {
  /// Computes the chunks [chunk_begin, chunk_end), each from a fresh start, and adds them in order to `state` or, with
  /// a state_step, each to its own: the i-th to the state that lies i · state_step floats behind. Of what keys a row
  /// may see, the window and the least distance are looked at; strides are the caller's work (attention_strided.h).
  /// scratch: AttentionScratchFloats, 64-byte aligned.
  void (*attend)(const AttentionTask& task, int64_t chunk_begin, int64_t chunk_end, float* scratch,
                 const AttentionState& state, int64_t state_step) noexcept = nullptr;
  /// Adds `from` (one chunk's state) to `into`, as attend does after each chunk.
  void (*merge)(const AttentionState& from, int32_t rows, const AttentionState& into) noexcept = nullptr;
  /// Writes acc / sum to the task's rows of args->out; rows that have seen nothing become 0.
  void (*store)(const AttentionTask& task, const AttentionState& state) noexcept = nullptr;
};

}  // namespace kvasir
