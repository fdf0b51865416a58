// Hugging Face checkpoints whose matrices others have quantised: bitsandbytes, GPTQ, AWQ and fp8.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "io/json.h"
#include "io/tensor_source.h"

namespace kvasir {

/// How a checkpoint says that it is quantised.
struct Quantization {
  json::object settings;  // "quant_method", "bits", "group_size", …
  std::string what;       // for messages: where the settings stand
};

/// "quantization_config" (or "compression_config") of config.json, else quantize_config.json (AutoGPTQ) or
/// quant_config.json (AutoAWQ) in `folder`; nothing where there is none of them.
Result<std::optional<Quantization>> FindQuantization(const JsonReader& config, const std::filesystem::path& folder);

/// Presents quantised matrices as what they are, one tensor "X.weight" of shape [outputs, inputs] with `rows` (also
/// where the family stores Conv1D), and leaves out the tensors that they are made of (codes, scales, zeros, indices,
/// states); all others pass. A matrix that fits none of the packed types is widened to fp32, which is said once.
///
/// Without `quantization`, bitsandbytes' and fp8's tensors are found by their names; a source without such comes back
/// as it is. Errors name file, tensor and reason: methods, bits, layouts that are not known, helpers that are missing
/// (all of them), shapes that disagree, scales that are not finite, group indices out of range. Reads scales and group
/// indices, no codes.
Result<std::unique_ptr<TensorSource>> OpenQuantized(std::unique_ptr<TensorSource> stored,
                                                    const std::optional<Quantization>& quantization);

}  // namespace kvasir
