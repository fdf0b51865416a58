// Packing of block types into records.
#pragma once

#include <optional>
#include <span>

#include "kernels/ops.h"

namespace kvasir {

/// The packed format that keeps the blocks of `dtype` as they are, or nothing for plain types.
std::optional<WeightFormat> BlockFormatOf(DType dtype);

/// The inverse: nothing for plain formats.
std::optional<DType> BlockTypeOf(WeightFormat format);

/// PackPanel for one panel (at most 16 rows) of a block format. REQUIRES: BlockFormatOf(row.dtype) == format for
/// every row; cols is a whole number of blocks.
void PackQuantPanel(std::span<const PackSource> rows, int64_t cols, WeightFormat format, std::byte* out);

/// UnpackRow for block formats, in the order of the packed columns. GGUF's types: equal to DequantizeGgufBlocks of the
/// row that was packed, to the bit. Coded types: as DequantizeCodedBlocks, but with fp16 scales and minima (not int8
/// and fp8), and the integers of nf4's and fp4's tables.
void UnpackQuantRow(const PackedWeight& w, int64_t row, float* out);

}  // namespace kvasir
