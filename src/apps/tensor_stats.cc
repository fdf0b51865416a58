#include "apps/tensor_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "base/dtype.h"
#include "quant/gguf_blocks.h"

namespace kvasir::apps {
namespace {

template <typename T>
T LoadAs(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));  // files do not align tensors
  return value;
}

struct Partial {
  int64_t finite = 0;
  int64_t nans = 0;
  int64_t infinities = 0;
  double min = INFINITY;
  double max = -INFINITY;
  double sum = 0;

  void Add(double x) {
    if (std::isnan(x)) {
      ++nans;
    } else if (std::isinf(x)) {
      ++infinities;
    } else {
      ++finite;
      min = std::min(min, x);
      max = std::max(max, x);
      sum += x;
    }
  }
};

void AddBlock(DType dtype, const std::byte* block, Partial& partial) {
  float values[256];
  DequantizeGgufBlocks(dtype, block, 1, values);
  for (int64_t i = 0; i < DTypeBlockSize(dtype); ++i) partial.Add(static_cast<double>(values[i]));
}

void AddRange(const RawTensor& tensor, int64_t begin, int64_t end, Partial& partial) {
  const int64_t size = DTypeBlockBytes(tensor.dtype);
  for (int64_t i = begin; i < end; ++i) {
    const std::byte* at = tensor.data + i * size;
    switch (tensor.dtype) {
      case DType::kF32: partial.Add(static_cast<double>(LoadAs<float>(at))); break;
      case DType::kF16: partial.Add(static_cast<double>(ToFloat(LoadAs<Float16>(at)))); break;
      case DType::kBF16: partial.Add(static_cast<double>(ToFloat(LoadAs<BFloat16>(at)))); break;
      case DType::kF64: partial.Add(LoadAs<double>(at)); break;
      case DType::kF8E4M3: partial.Add(static_cast<double>(E4M3ToFloat(LoadAs<uint8_t>(at)))); break;
      case DType::kF8E5M2: partial.Add(static_cast<double>(E5M2ToFloat(LoadAs<uint8_t>(at)))); break;
      default: AddBlock(tensor.dtype, at, partial); break;
    }
  }
}

bool IsNumeric(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kF64:
    case DType::kF8E4M3:
    case DType::kF8E5M2: return true;
    default: return IsGgufBlockType(dtype);
  }
}

}  // namespace

std::optional<TensorStats> ScanTensor(const RawTensor& tensor, ThreadPool& pool) {
  if (!IsNumeric(tensor.dtype)) return std::nullopt;
  constexpr int64_t kChunk = 1 << 16;  // blocks; partial sums are added in order
  const int64_t blocks = tensor.elements() / DTypeBlockSize(tensor.dtype);
  std::vector<Partial> partials(static_cast<size_t>(CeilDiv(blocks, kChunk)));
  pool.ParallelFor(static_cast<int64_t>(partials.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; ++c) {
      AddRange(tensor, c * kChunk, std::min((c + 1) * kChunk, blocks), partials[static_cast<size_t>(c)]);
    }
  });
  if (tensor.file) tensor.file->GiveBack(tensor.data, static_cast<size_t>(tensor.bytes));

  Partial all;
  for (const Partial& partial : partials) {
    all.finite += partial.finite;
    all.nans += partial.nans;
    all.infinities += partial.infinities;
    all.min = std::min(all.min, partial.min);
    all.max = std::max(all.max, partial.max);
    all.sum += partial.sum;
  }
  TensorStats stats{.elements = tensor.elements(), .nans = all.nans, .infinities = all.infinities};
  if (all.finite > 0) {
    stats.min = all.min;
    stats.max = all.max;
    stats.mean = all.sum / static_cast<double>(all.finite);
  }
  return stats;
}

}  // namespace kvasir::apps
