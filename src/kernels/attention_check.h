// What both kinds of attention share: validation and counting.
#pragma once

#include "base/status.h"
#include "kernels/exec.h"
#include "kernels/views.h"

namespace kvasir {

/// Whether the kernels can run it: head sizes, counts of heads, slots within the view.
Status CheckAttentionArgs(const AttentionArgs& args);

/// Adds the products of the pairs that the mask leaves, and the cache read once.
void CountAttention(const AttentionArgs& args, OpCounters* counters);

}  // namespace kvasir
