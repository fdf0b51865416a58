// The strided part of attention: keys whose distance is a multiple of args.stride > 1 (atrous and sparse attention).
//
// Positions that are equal modulo the stride are a residue class, and within a class this is attention to every key.
// So keys and values of a class are gathered into tiles of their own, a chunk of kChunkSlots at a time, and the
// kernels attend to those. Chunks begin at absolute multiples within the class, which makes them part of the result's
// definition as chunks of slots are elsewhere.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/exec.h"
#include "kernels/ops.h"
#include "kernels/views.h"

namespace kvasir {

inline bool IsStrided(const AttentionArgs& args) { return args.stride > 1; }

/// Whether keys at distances that are no multiples of the stride are seen as well.
inline bool HasLocalPart(const AttentionArgs& args) { return args.local > 0; }

/// The softmax of a sequence's strided part: what AttentionState says of a row, [tokens · n_heads] each. Its
/// accumulators, divided by `sum`, are in args.out.
struct StridedResult {
  float* max = nullptr;
  float* sum = nullptr;
};

/// Attends to the strided part of those sequences that have one and writes args.out. Of sequences that have a local
/// part too, it fills in results[i], which then begins behind that part: memory of ctx.scratch, taken here.
/// Unsupported for caches with positions. results: one for each sequence.
Status AttendStrided(ExecContext& ctx, std::span<const AttentionArgs> sequences, StridedResult* results);

/// The most it takes of ctx.scratch, in bytes: while it runs, and of that for results.
struct StridedScratch {
  int64_t running = 0;
  int64_t results = 0;
};
StridedScratch StridedScratchBytes(const AttentionShape& shape);

}  // namespace kvasir
