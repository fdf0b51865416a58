// Which rows of which tensors make up each weight. Packing quirks of checkpoints (fused or grouped QKV, Conv1D's
// transposition, GGUF's permuted rows) are undone here, by naming rows, so that the forward pass never sees them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/gguf.h"
#include "io/json.h"
#include "io/tensor_source.h"
#include "model/decoder_spec.h"

namespace kvasir {

/// `count` rows of one tensor: first, first + step, …. A row of a matrix is an output of the linear layer; the
/// elements of a vector are rows of one column.
struct RowRule {
  std::string tensor;
  int64_t first = 0;
  int64_t count = -1;  // -1: all rows from `first` on (with step 1)
  int64_t step = 1;
  bool transposed = false;  // stored as [inputs, outputs] (Conv1D): the rows are the tensor's columns
  int64_t slice = -1;       // index into the first dimension of a 3-D tensor (experts stacked in one); -1: none
};

/// The rows of one matrix or vector, in order. Empty: the model has no such weight.
struct WeightRule {
  std::vector<RowRule> rows;

  WeightRule() = default;
  /// All rows of one tensor.
  explicit WeightRule(std::string tensor, bool transposed = false) {
    rows.push_back({.tensor = std::move(tensor), .transposed = transposed});
  }
  bool empty() const { return rows.empty(); }
};

struct NormRule {
  WeightRule weight;
  WeightRule bias;
};

struct LinearRule {
  WeightRule weight;
  WeightRule bias;
};

struct FfnRule {
  LinearRule gate;
  LinearRule up;
  LinearRule down;
};

struct LayerRule {
  NormRule attn_norm, attn_branch_norm, attn_residual_norm;
  NormRule ffn_norm, ffn_branch_norm, ffn_residual_norm;
  LinearRule q, k, v, out;
  NormRule q_norm, k_norm;
  FfnRule ffn;                   // dense
  LinearRule router;             // [n_experts, width]
  std::vector<FfnRule> experts;  // one per expert
};

struct WeightRules {
  WeightRule embedding;
  WeightRule positions;  // learned table
  NormRule embedding_norm;
  WeightRule project_in;
  WeightRule project_out;
  NormRule final_norm;
  LinearRule head;  // weight empty when tied
  std::vector<LayerRule> layers;
  /// Name endings of tensors that are in such files but not needed (masks, cached frequencies): not warned about.
  std::vector<std::string> ignored_suffixes;
};

/// A model family: how its files are read. Plain functions, stateless, thread-safe.
struct ModelFamily {
  std::string_view name;

  /// Values of config.json's "model_type" that this family reads.
  std::vector<std::string_view> model_types;
  Result<DecoderSpec> (*parse)(const JsonReader& config) = nullptr;
  /// `source` lets a family see which prefix a checkpoint's names have; it must not derive settings from it.
  Result<WeightRules> (*rules)(const DecoderSpec& spec, const TensorSource& source) = nullptr;

  /// Values of GGUF's "general.architecture"; empty where GGUF does not know the family.
  std::vector<std::string_view> gguf_architectures;
  Result<DecoderSpec> (*parse_gguf)(const GgufFile& file) = nullptr;
  Result<WeightRules> (*rules_gguf)(const DecoderSpec& spec, const GgufFile& file) = nullptr;

  /// The architecture that checkpoints of this family are written as in GGUF; empty: not yet.
  std::string_view gguf_written_as;
};

/// All families: every `ModelFamily Name() {` in model/families/ (cmake/model_families.cmake makes the list).
const std::vector<ModelFamily>& ModelFamilies();

}  // namespace kvasir
