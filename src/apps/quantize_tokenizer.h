// A Hugging Face folder's tokenizer as GGUF metadata.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/gguf_write.h"

namespace kvasir::apps {

/// tokenizer.ggml.* and the chat template of the folder's tokenizer.json, as many tokens as the model's vocabulary
/// has. `pre`: tokenizer.ggml.pre; empty: found by how the file divides text, an error naming --pre where no name
/// stands for that. Only byte-level BPE and BPE with byte fallback can be written.
Result<std::vector<GgufEntry>> TokenizerEntries(const std::filesystem::path& folder, int64_t vocab_size,
                                                const std::string& pre);

/// Encodes samples with the folder's tokenizer and with the one that a reader makes of `written`. An error says where
/// they part; with `pre` chosen by the user it is only a note.
Status CompareTokenizers(const std::filesystem::path& folder, const GgufFile& written, bool pre_chosen);

}  // namespace kvasir::apps
