#include "apps/quantize_gptq_tensors.h"

#include <boost/json/object.hpp>

#include <cstring>

#include "apps/report.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

constexpr std::string_view kWeight = ".weight";

template <typename T>
std::vector<std::byte> BytesOf(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// values in the order in which the tensor has them.
std::vector<std::byte> PlainBytes(const SourceMatrix& source, const float* values, DType dtype) {
  const int64_t rows = source.rows();
  const int64_t cols = source.cols();
  const int64_t size = DTypeBlockBytes(dtype);
  std::vector<std::byte> bytes(static_cast<size_t>(rows * cols * size));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float value = values[r * cols + c];
      std::byte* const to = bytes.data() + (source.transposed ? c * rows + r : r * cols + c) * size;
      const uint16_t half = dtype == DType::kBF16 ? ToBFloat16(value).bits : ToFloat16(value).bits;
      std::memcpy(to, dtype == DType::kF32 ? static_cast<const void*>(&value) : &half, static_cast<size_t>(size));
    }
  }
  return bytes;
}

bool IsPlain(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64;
}

}  // namespace

Status CheckGptqSource(const ModelFiles& files) {
  if (files.gguf) {
    return Unsupported("{}: GPTQ's layout belongs to Hugging Face folders; give the folder that the file was made from",
                       files.path.string());
  }
  const std::filesystem::path config_path = files.folder / "config.json";
  ASSIGN_OR_RETURN(const json::value config, ParseJsonFile(config_path));
  if (config.is_object() && config.get_object().contains("quantization_config")) {
    return Unsupported("{}: says that the weights are quantised already; quantise the original ones",
                       config_path.string());
  }
  return OkStatus();
}

std::string WhyKept(const SourceMatrix& source, const GptqFlags& flags) {
  const RawTensor& tensor = *source.tensor;
  if (!IsPlain(tensor.dtype) || tensor.data == nullptr) return "is quantised already";
  if (tensor.shape.size() != 2) return "several matrices in one tensor";
  if (flags.dequantize) return "";
  if (!tensor.name.ends_with(kWeight)) return "its name does not end in .weight";
  if (!FitsGptqLayout(source.rows(), source.cols())) {
    return fmt::format("{} x {} are no multiples of 32", source.rows(), source.cols());
  }
  return "";
}

void GptqTensorSet::Add(std::string name, DType dtype, std::vector<int64_t> shape, std::vector<std::byte> bytes) {
  bytes_.push_back(std::move(bytes));
  tensors_.push_back({.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .data = bytes_.back()});
}

GptqTensorSet MakeGptqTensors(const SourceMatrix& source, const GptqMatrix& matrix, const float* values,
                              const GptqFlags& flags, ThreadPool& pool) {
  GptqTensorSet set;
  const std::string& name = source.tensor->name;
  if (flags.dequantize) {
    set.Add(name, *flags.dequantize, source.tensor->shape, PlainBytes(source, values, *flags.dequantize));
    return set;
  }
  const std::string module = name.substr(0, name.size() - kWeight.size());
  const GptqTensors tensors = PackGptqTensors(matrix, !flags.version_2, pool);
  const int64_t words = matrix.bits;  // of 32 bits, for 32 values
  set.Add(module + ".qweight", DType::kI32, {matrix.cols / 32 * words, matrix.rows}, BytesOf(tensors.qweight));
  set.Add(module + ".qzeros", DType::kI32, {matrix.groups, matrix.rows / 32 * words}, BytesOf(tensors.qzeros));
  set.Add(module + ".scales", DType::kF16, {matrix.groups, matrix.rows}, BytesOf(matrix.scales));
  set.Add(module + ".g_idx", DType::kI32, {matrix.cols}, BytesOf(matrix.group_of));
  return set;
}

std::string GptqConfig(const GptqFlags& flags) {
  const GptqOptions& gptq = flags.gptq;
  return PlainJson(json::object{{"quant_method", "gptq"},
                                {"bits", gptq.bits},
                                {"group_size", gptq.group_size},
                                {"damp_percent", gptq.damping},
                                {"desc_act", gptq.act_order},
                                {"static_groups", false},
                                {"sym", gptq.symmetric},
                                {"mse", gptq.search_grid ? 2.4 : 0.0},
                                {"true_sequential", true},
                                {"lm_head", false},
                                {"model_file_base_name", "model"},
                                {"checkpoint_format", flags.version_2 ? "gptq_v2" : "gptq"}});
}

}  // namespace kvasir::apps
