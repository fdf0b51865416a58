// Columns of odd sizes, brought to the usual one before a GGUF file is rounded.
#pragma once

#include <cstdint>

#include "apps/quantize_source.h"
#include "base/thread_pool.h"

namespace kvasir::apps {

/// Where inputs are far larger than the others, as a few are in large models, the weights behind them are smaller in
/// proportion and would vanish in the rounding of their block. Their columns are multiplied with powers of two, and
/// what makes the inputs is divided by the same: the norm before q, k and v or before gate and up, the rows of v before
/// the output, those of up before down (cf. SmoothQuant, Xiao et al. 2022). The model computes the same. Only pre-norm
/// layers one after another with separate matrices are looked at; of others nothing is changed. Reads all weights.
/// Returns how many columns of inputs were scaled. REQUIRES: a source under GGUF's names.
Result<int64_t> EqualizeColumns(QuantizeSource& source, ThreadPool& pool);

}  // namespace kvasir::apps
