// Quantised checkpoints: settings (JSON) up to a zero byte, then a safetensors file. Whatever is accepted must encode
// every row inside the file, as blocks of the type that it names.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/log.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/tensor_list.h"
#include "model/quantized_source.h"
#include "quant/coded_blocks.h"

namespace {

/// Tensors in memory.
class MemorySource final : public kvasir::TensorSource {
 public:
  explicit MemorySource(kvasir::TensorList tensors) : tensors_(std::move(tensors)) {}
  const kvasir::RawTensor* Find(std::string_view name) const override { return tensors_.Find(name); }
  std::span<const kvasir::RawTensor> tensors() const override { return tensors_.tensors(); }
  const std::string& description() const override { return description_; }

 private:
  kvasir::TensorList tensors_;
  std::string description_ = "fuzz";
};

void CheckMatrix(const kvasir::RawTensor& tensor) {
  if (tensor.shape.size() != 2 || tensor.data != nullptr) std::abort();
  const int64_t rows = tensor.shape[0];
  const int64_t cols = tensor.shape[1];
  const auto row_bytes = kvasir::DTypeBytes(tensor.dtype, cols);
  if (!row_bytes || *row_bytes * rows != tensor.bytes) std::abort();
  const std::span<const int32_t> order = tensor.rows->order();
  if (!order.empty()) {
    std::vector<int32_t> sorted(order.begin(), order.end());
    std::ranges::sort(sorted);
    if (static_cast<int64_t>(sorted.size()) != cols) std::abort();
    for (size_t i = 0; i < sorted.size(); ++i) {
      if (sorted[i] != static_cast<int32_t>(i)) std::abort();
    }
  }
  std::vector<std::byte> blocks(static_cast<size_t>(*row_bytes));
  std::vector<float> values(static_cast<size_t>(cols));
  for (int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
    tensor.rows->Encode(row, blocks.data());
    if (!kvasir::IsCodedType(tensor.dtype)) continue;
    kvasir::DequantizeCodedBlocks(tensor.dtype, blocks.data(), cols / kvasir::DTypeBlockSize(tensor.dtype),
                                  values.data());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvasir::SetLogLevel(kvasir::LogLevel::kOff);
  const uint8_t* const end = std::find(data, data + size, uint8_t{0});
  if (end == data + size) return 0;
  const auto settings =
      kvasir::ParseJson({reinterpret_cast<const char*>(data), static_cast<size_t>(end - data)}, "settings");
  if (!settings.ok() || !(settings->is_object() || settings->is_null())) return 0;
  // Its own copy, so that reading beyond it is seen.
  const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(end) + 1,
                                     reinterpret_cast<const std::byte*>(data) + size);
  const auto header = kvasir::ParseSafetensorsHeader(bytes, "fuzz");
  if (!header.ok()) return 0;
  std::vector<kvasir::RawTensor> tensors;
  for (const auto& entry : header->entries) {
    tensors.push_back({.name = entry.name,
                       .dtype = entry.dtype,
                       .shape = entry.shape,
                       .data = bytes.data() + header->data_begin + entry.begin,
                       .bytes = entry.end - entry.begin});
  }
  auto list = kvasir::TensorList::Make(std::move(tensors), "fuzz");
  if (!list.ok()) return 0;
  std::optional<kvasir::Quantization> quantization;
  if (settings->is_object()) quantization = {settings->get_object(), "settings"};
  const auto source = kvasir::OpenQuantized(std::make_unique<MemorySource>(*std::move(list)), quantization);
  if (!source.ok()) {
    if (source.status().message().empty()) std::abort();
    return 0;
  }
  for (const kvasir::RawTensor& tensor : (*source)->tensors()) {
    if (tensor.rows) CheckMatrix(tensor);
  }
  return 0;
}
