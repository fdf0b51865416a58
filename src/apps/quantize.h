// What `kvasir quantize` was asked for, and the methods that do it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace kvasir::apps {

/// The flags of `kvasir quantize` that all methods share.
struct QuantizeOptions {
  std::filesystem::path source;     // a Hugging Face folder or a .gguf file
  std::filesystem::path output;     // a .gguf file, or a folder of safetensors
  std::string type;                 // "q4_k", a mixture such as "q4_k_m", or "f32", "f16", "bf16"
  std::vector<std::string> keep;    // GLOB=TYPE, by the names of tensors in the output; the last match wins
  std::string calibration;          // a text that the model is run on; empty: none
  int64_t calibration_chunk = 512;  // tokens run at once, at most the model's context
  int64_t calibration_chunks = 0;   // at most so many; 0: the whole text
  std::string imatrix;              // an importance matrix to be read; empty: none
  std::string save_imatrix;         // where the one made from the calibration text is written; empty: nowhere
  std::string pre_tokenizer;        // tokenizer.ggml.pre of the output; empty: found out
  std::optional<int32_t> threads;   // empty: all processors
  bool equalize = true;             // scale columns that rounding would lose or that would spoil others
  bool requantize = false;          // take sources that are quantised already
  bool force = false;               // replace an output that exists
  bool json = false;                // the report as JSON on standard output
};

/// --method rtn: every tensor for itself, rounded to the nearest values of its type with the scales of least error.
Status RunRtnQuantize(const QuantizeOptions& options);

}  // namespace kvasir::apps
