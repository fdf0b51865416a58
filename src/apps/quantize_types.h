// Which type each tensor of a quantised model gets: named types and mixtures, the user's rules, and what fits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"

namespace kvasir::apps {

/// What is asked of a tensor's type.
struct TensorToType {
  std::string name;            // as the output calls it
  std::vector<int64_t> shape;  // outermost first
  DType source = DType::kF32;  // as it is stored now
};

/// A type given for names.
struct KeepRule {
  std::string glob;  // * and ?; matches the whole name, with or without ".weight"
  DType type = DType::kF32;
};

/// Whether a glob of * (any characters) and ? (one) matches all of `text`. O(|glob| · |text|).
bool GlobMatches(std::string_view glob, std::string_view text);

/// "blk.*.attn_v=q6_k".
Result<KeepRule> ParseKeepRule(std::string_view text);

/// A tensor's name with its numbers left out: "blk.*.attn_v.weight".
std::string KindOfTensor(std::string_view name);

/// The names that --type takes, for messages.
std::string QuantizeTypeNames();

struct TypePlan {
  std::vector<DType> types;        // one per tensor
  std::vector<std::string> notes;  // what could not be as asked, a line for each kind of tensor
  uint32_t file_type = 0;          // GGUF's general.file_type
};

/// Types of all tensors of a GGUF file. `type` is a type's name (every matrix gets it) or a mixture's. Vectors, norms,
/// positions and routers stay in 16 or 32 bit unless a rule says otherwise; of rules the last match counts. Matrices
/// whose rows do not divide into a type's blocks get the nearest type that fits. Errors: unknown names, rules that
/// match nothing.
Result<TypePlan> PlanTypes(std::string_view type, const std::vector<std::string>& keep,
                           const std::vector<TensorToType>& tensors);

/// The same for a folder of safetensors: every tensor of floats becomes `type` but for rules, which take plain types.
Result<TypePlan> PlanPlainTypes(DType type, const std::vector<std::string>& keep,
                                const std::vector<TensorToType>& tensors);

/// --type as a plain type for whole models in safetensors, or nothing.
std::optional<DType> PlainType(std::string_view type);

}  // namespace kvasir::apps
