// Importance matrices: how strongly each input of each matrix is driven by a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "apps/quantize_source.h"
#include "base/status.h"
#include "engine/engine.h"

namespace kvasir::apps {

/// Sums of x² over the rows that a matrix was multiplied with; matrices stacked in one tensor each for itself.
struct ImportanceEntry {
  int64_t columns = 0;
  std::vector<float> sums;    // [matrices, columns]
  std::vector<float> counts;  // [matrices]: rows; 0: never used

  /// Mean x² of one matrix's columns, or empty when it was never used.
  std::vector<float> Mean(int64_t matrix) const;
};

struct ImportanceMatrix {
  std::map<std::string, ImportanceEntry, std::less<>> entries;  // by tensor name
  std::string dataset;                                          // the text's name
  int64_t chunks = 0;
  int64_t chunk_tokens = 0;
};

/// Reads llama.cpp's formats: GGUF with NAME.in_sum2 and NAME.counts, and the older binary one. Numbers that are
/// negative or not finite are errors.
Result<ImportanceMatrix> ReadImportance(const std::filesystem::path& file);

/// Writes llama.cpp's GGUF form.
Status WriteImportance(const ImportanceMatrix& matrix, const std::filesystem::path& file);

/// Runs `engine` on a text in chunks of `chunk` tokens (at most its context), with the beginning-of-text token first
/// in each, and sums up. Names are the checkpoint's. `chunks`: at most so many; 0: all whole ones. Texts of less than
/// 512 tokens, or of less than one chunk, are errors.
Result<ImportanceMatrix> MeasureImportance(Engine& engine, const std::filesystem::path& text, int64_t chunk,
                                           int64_t chunks, bool quiet);

/// The same by the names of the tensors that `source` will be written as.
ImportanceMatrix RenameImportance(const ImportanceMatrix& matrix, const QuantizeSource& source);

}  // namespace kvasir::apps
