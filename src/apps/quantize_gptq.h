// kvasir quantize --method gptq: a Hugging Face folder quantised by GPTQ (arXiv:2210.17323), layer by layer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "apps/flags.h"
#include "base/dtype.h"
#include "base/status.h"
#include "quant/gptq.h"

namespace kvasir::apps {

/// The flags that only GPTQ has.
struct GptqFlags {
  GptqOptions gptq;
  int64_t samples = 128;
  std::optional<int64_t> sample_length;  // tokens; unset: the model's context, 2048 at most
  bool version_2 = false;                // checkpoint_format "gptq_v2"
  bool aim_at_originals = true;          // make up for what the matrices before have lost, too (arXiv:2504.02692)
  bool nearest = false;                  // round to nearest on the same grids; no calibration text
  std::optional<DType> dequantize;       // write plain tensors of the quantised values

  void Add(FlagTable& flags);
  Status Validate() const;
};

struct GptqJob {
  std::filesystem::path source;             // a Hugging Face folder, or a .safetensors file in one
  std::filesystem::path output;             // a folder
  std::filesystem::path calibration;        // a text file
  std::vector<int32_t> calibration_tokens;  // instead of the file, for models without a tokenizer
  GptqFlags flags;
  int threads = 0;  // 0: all processors
  bool force = false;
  bool quiet = false;  // no progress
};

/// One source tensor.
struct GptqEntry {
  std::string tensor;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t tokens = 0;       // that its inputs were seen for
  int64_t dead = 0;         // inputs that were always zero
  double damping = 0;       // that was needed
  double error_before = 0;  // of the outputs on the calibration text, relative: rounded to nearest …
  double error_after = 0;   // … and by GPTQ (0 where nothing was calibrated)
  int64_t bytes_before = 0;
  int64_t bytes_after = 0;
};

struct GptqReport {
  std::vector<GptqEntry> matrices;
  std::vector<std::string> kept;  // matrices of layers that stay as they are
  int64_t samples = 0;
  int64_t sample_length = 0;
  int64_t bytes_before = 0;  // of all tensors
  int64_t bytes_after = 0;
  double seconds = 0;
};

/// Quantises the matrices of all decoder layers; embeddings, norms, biases, routers and the head stay as they are, and
/// so does what the layout cannot hold (said aloud). Memory: the samples' hidden states (twice with aim_at_originals,
/// and so what follows), one layer in fp32, the second moments of one part of it (the experts of a mixture in groups),
/// and what their factorisation takes; never the model. The old folder stays whole on any error.
Result<GptqReport> QuantizeByGptq(const GptqJob& job);

/// The same for the command line: Ctrl-C ends it quietly, and the report goes to standard output.
Status RunGptq(const GptqJob& job, bool json);

/// The report as text, a line for each matrix, or as JSON on one line.
std::string GptqTable(const GptqReport& report);
std::string GptqJson(const GptqReport& report, const std::filesystem::path& folder);

}  // namespace kvasir::apps
