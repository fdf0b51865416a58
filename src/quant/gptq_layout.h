// AutoGPTQ's layout of a quantised matrix, which Hugging Face's GPTQ checkpoints have.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/gptq.h"

namespace kvasir {

/// The tensors that stand for a linear layer's weight, beside scales (GptqMatrix::scales, f16 [groups, rows]) and g_idx
/// (GptqMatrix::group_of, i32 [cols]). Codes are one stream of bits, lowest first, in words of 32 bits.
struct GptqTensors {
  std::vector<uint32_t> qweight;  // [cols · bits / 32, rows]: each output's codes run down its column
  std::vector<uint32_t> qzeros;   // [groups, rows · bits / 32]
};

/// Whether the layout can hold a matrix: both sizes are multiples of 32.
inline bool FitsGptqLayout(int64_t rows, int64_t cols) {
  return rows > 0 && cols > 0 && rows % 32 == 0 && cols % 32 == 0;
}

/// `minus_one`: zero points are stored less one (checkpoint_format "gptq"; "gptq_v2" stores them as they are).
/// REQUIRES: FitsGptqLayout.
GptqTensors PackGptqTensors(const GptqMatrix& matrix, bool minus_one, ThreadPool& pool);

}  // namespace kvasir
