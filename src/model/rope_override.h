// RoPE as a run wants it instead of as the checkpoint says (R5).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "model/decoder_spec.h"

namespace kvasir {

/// What --rope-scaling, --rope-scale, --rope-theta and --yarn-orig-ctx say; unset fields change nothing.
struct RopeOverride {
  /// "none", "linear", "dynamic", "yarn" or "llama3", the last four also as "yarn:4" with their factor; or a JSON
  /// object as config.json has it under "rope_scaling". Empty with a factor: linear.
  std::string scaling;
  std::optional<double> factor;
  std::optional<double> theta;
  /// Tokens that the model was trained on before any scaling; alone, of the scaling that the model has.
  std::optional<int64_t> original_context;

  bool IsSet() const { return !scaling.empty() || factor || theta || original_context; }
};

/// Replaces the spec's own scaling (and whatever else is set), as if the checkpoint had said so. The trained length
/// becomes factor times the original one where a kind is good for that; with dynamic and without scaling it is the
/// original one. InvalidArgument for a model without rotary positions and for values that make no sense.
Status ApplyRopeOverride(const RopeOverride& rope, DecoderSpec& spec);

/// All that rotations depend on besides position and planned length, as text; empty without RoPE.
std::string RopeIdentity(const DecoderSpec& spec);

}  // namespace kvasir
