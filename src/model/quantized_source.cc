// Finds how a checkpoint is quantised and lets that layout's reader present its matrices.
#include "model/quantized_source.h"

#include <algorithm>
#include <array>

#include "base/log.h"
#include "io/tensor_list.h"
#include "model/quantized_reader.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;
using quantized::MatrixList;

struct Method {
  std::string_view name;  // of "quant_method"
  Status (*read)(const JsonReader& settings, MatrixList& list);
};

constexpr auto kMethods = std::to_array<Method>({
    {"bitsandbytes", quantized::ReadBitsandbytes},
    {"gptq", quantized::ReadGptq},
    {"awq", quantized::ReadAwq},
    {"fp8", quantized::ReadFp8},
    {"fbgemm_fp8", quantized::ReadFp8},
    {"compressed-tensors", quantized::ReadCompressedFp8},
});

/// A stored source with some of its tensors replaced.
class QuantizedSource final : public TensorSource {
 public:
  QuantizedSource(std::unique_ptr<TensorSource> stored, TensorList tensors)
      : stored_(std::move(stored)), tensors_(std::move(tensors)) {}
  const RawTensor* Find(std::string_view name) const override { return tensors_.Find(name); }
  std::span<const RawTensor> tensors() const override { return tensors_.tensors(); }
  std::span<const RawTensor> stored() const override { return stored_->stored(); }
  const std::string& description() const override { return stored_->description(); }

 private:
  std::unique_ptr<TensorSource> stored_;
  TensorList tensors_;
};

/// The method that the settings name, or that wrote such settings before they were named.
Result<std::string> MethodName(const JsonReader& settings) {
  if (settings.Has({"quant_method"})) return settings.String({"quant_method"});
  if (settings.Has({"load_in_4bit", "load_in_8bit"})) return std::string("bitsandbytes");
  if (settings.Has({"w_bit"})) return std::string("awq");
  if (settings.Has({"bits"})) return std::string("gptq");
  if (settings.Has({"config_groups"})) return std::string("compressed-tensors");
  return InvalidData("{}: has no \"quant_method\"; say there how the checkpoint is quantised", settings.what());
}

Result<const Method*> FindMethod(const JsonReader& settings) {
  ASSIGN_OR_RETURN(const std::string name, MethodName(settings));
  std::string known;
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
    known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  return Unsupported(
      "{}: \"quant_method\" is \"{}\"; known are {}; bring the 16-bit original, a GGUF file or one of those",
      settings.what(), name, known);
}

/// The method by which tensors without any settings are quantised, or null.
Result<const Method*> GuessMethod(const TensorSource& stored) {
  for (const RawTensor& tensor : stored.tensors()) {
    const std::string_view name = tensor.name;
    if (name.find(".quant_state.bitsandbytes__") != std::string_view::npos || name.ends_with(".SCB")) {
      return &kMethods[0];
    }
    const bool fp8 = tensor.dtype == DType::kF8E4M3 || tensor.dtype == DType::kF8E5M2;
    if (fp8 && (stored.Find(tensor.name + "_scale") != nullptr || stored.Find(tensor.name + "_scale_inv") != nullptr)) {
      return &kMethods[3];
    }
    if (name.ends_with(".qweight")) {
      return InvalidData(
          "{}: tensor \"{}\" is packed, but neither config.json's \"quantization_config\" nor a quantize_config.json "
          "beside it says how; download that file too",
          stored.description(), name);
    }
  }
  return nullptr;
}

Result<std::optional<Quantization>> ReadBeside(const fs::path& file) {
  ASSIGN_OR_RETURN(const json::value settings, ParseJsonFile(file));
  if (!settings.is_object()) return InvalidData("{}: is not a JSON object", file.string());
  return Quantization{settings.get_object(), file.string()};
}

}  // namespace

Result<std::optional<Quantization>> FindQuantization(const JsonReader& config, const fs::path& folder) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    ASSIGN_OR_RETURN(const json::object* settings, config.Object({key}));
    if (settings != nullptr) return Quantization{*settings, fmt::format("{}: \"{}\"", config.what(), key)};
  }
  for (const char* name : {"quantize_config.json", "quant_config.json"}) {
    std::error_code error;
    if (fs::exists(folder / name, error)) return ReadBeside(folder / name);
  }
  return std::optional<Quantization>();
}

Result<std::unique_ptr<TensorSource>> OpenQuantized(std::unique_ptr<TensorSource> stored,
                                                    const std::optional<Quantization>& quantization) {
  const json::object none;
  const JsonReader settings(quantization ? quantization->settings : none,
                            quantization ? quantization->what : stored->description());
  ASSIGN_OR_RETURN(const Method* method, quantization ? FindMethod(settings) : GuessMethod(*stored));
  if (method == nullptr) return stored;
  MatrixList list(*stored);
  RETURN_IF_ERROR(method->read(settings, list));
  ASSIGN_OR_RETURN(std::vector<RawTensor> tensors, list.Finish());
  if (list.empty()) {
    LogWarning("{} speaks of {}, but no matrix is quantised so; all are read as they are", settings.what(),
               method->name);
  }
  ASSIGN_OR_RETURN(TensorList named, TensorList::Make(std::move(tensors), stored->description()));
  return std::make_unique<QuantizedSource>(std::move(stored), std::move(named));
}

}  // namespace kvasir
