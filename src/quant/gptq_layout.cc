#include "quant/gptq_layout.h"

namespace kvasir {
namespace {

/// Packs 32 values of `bits` bits, `bits` words of 32 bits `stride` apart.
template <typename Get>
void PackWords(int bits, const Get& get, uint32_t* out, int64_t stride) {
  uint64_t pending = 0;
  int filled = 0;
  for (int64_t i = 0; i < 32; ++i) {
    pending |= static_cast<uint64_t>(get(i)) << filled;
    filled += bits;
    if (filled >= 32) {
      *out = static_cast<uint32_t>(pending);
      out += stride;
      pending >>= 32;
      filled -= 32;
    }
  }
}

}  // namespace

GptqTensors PackGptqTensors(const GptqMatrix& matrix, bool minus_one, ThreadPool& pool) {
  const int64_t rows = matrix.rows;
  const int64_t cols = matrix.cols;
  const int bits = matrix.bits;
  KVASIR_CHECK(FitsGptqLayout(rows, cols));
  GptqTensors out;
  out.qweight.resize(static_cast<size_t>(cols / 32 * bits * rows));
  out.qzeros.resize(static_cast<size_t>(matrix.groups * (rows / 32) * bits));
  pool.ParallelFor(cols / 32, 4, [&](int64_t from, int64_t to, int) {
    for (int64_t block = from; block < to; ++block) {
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t* const codes = matrix.codes.data() + r * cols + block * 32;
        PackWords(bits, [&](int64_t i) { return codes[i]; }, out.qweight.data() + block * bits * rows + r, rows);
      }
    }
  });
  const uint32_t less = minus_one ? 1 : 0;
  for (int64_t block = 0; block < matrix.groups * (rows / 32); ++block) {
    const uint8_t* const zeros = matrix.zeros.data() + block * 32;
    PackWords(bits, [&](int64_t i) { return zeros[i] - less; }, out.qzeros.data() + block * bits, 1);
  }
  return out;
}

}  // namespace kvasir
