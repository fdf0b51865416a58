// The quantisers by shape of block; internal to quant/.
#pragma once

#include "quant/gguf_quantize.h"

namespace kvasir {

/// One block of values and their weights, which are not all 0, to codes and scales.
using BlockQuantizer = void (*)(const float* x, const float* w, GgufBlock* out);

/// Blocks of 32 with one scale: q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, mxfp4; else null.
BlockQuantizer SmallBlockQuantizer(DType type);
/// Blocks of 256 whose sub-blocks have scales: q3_k, q6_k, iq4_xs; else null.
BlockQuantizer ScaledBlockQuantizer(DType type);
/// Blocks of 256 whose sub-blocks have scales and minima: q2_k, q4_k, q5_k; else null.
BlockQuantizer AffineBlockQuantizer(DType type);

}  // namespace kvasir
