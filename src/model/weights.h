// A model's weights in the kernels' layout, and the plan by which they are brought there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/mapped_file.h"
#include "base/status.h"
#include "io/tensor_source.h"
#include "kernels/ops.h"
#include "model/decoder_spec.h"
#include "model/weight_rules.h"

namespace kvasir {

/// A linear layer: packed rows and a bias of as many values (zero-padded to whole panels), or none.
struct Linear {
  PackedWeight weight;
  const float* bias = nullptr;
};

struct Norm {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

struct FfnWeights {
  Linear up;  // gated: gate and up rows in alternating panels (Epilogue::gated)
  Linear down;
};

struct LayerWeights {
  Norm attn_norm, attn_branch_norm, attn_residual_norm;
  Norm ffn_norm, ffn_branch_norm, ffn_residual_norm;
  /// Rows of Q, then K, then V: one matrix, or up to three where they are stored in different formats.
  std::vector<PackedWeight> qkv;
  const float* qkv_bias = nullptr;
  Linear out;
  Norm q_norm, k_norm;
  FfnWeights ffn;
  Linear router;
  std::vector<FfnWeights> experts;
};

struct ModelWeights {
  PackedWeight embedding;
  PackedWeight positions;
  Norm embedding_norm;
  PackedWeight project_in, project_out;
  Norm final_norm;
  Linear head;  // the embedding again when tied
  std::vector<LayerWeights> layers;
};

/// Consecutive rows of one tensor: what a RowRule becomes once its tensor is found and its shape checked.
struct RowSegment {
  const RawTensor* tensor = nullptr;
  int64_t first = 0;
  int64_t count = 0;
  int64_t step = 1;
  bool transposed = false;
  int64_t slice_offset = 0;  // elements before the matrix inside the tensor
};

/// One packed matrix or fp32 vector to be made.
struct WeightSlot {
  std::string name;                       // "layers.3.qkv", stable: packed files are keyed by it
  std::vector<RowSegment> segments;       // of the first (or only) part
  std::vector<RowSegment> gate_segments;  // gated FFNs: the gate's rows, alternating by panels with `segments`
  int64_t rows = 0;                       // of the packed matrix, or values of the vector
  int64_t cols = 0;                       // 0: a vector of `rows` fp32 values
  bool gated = false;
  bool normalize_rows = false;
  WeightFormat format = WeightFormat::kF32;
  std::optional<DType> quantized;  // what rows are rounded to on packing
  std::span<const int32_t> order;  // of the packed columns, where it is another; stands behind the panels
  int64_t offset = 0;              // in the weight buffer
  int64_t bytes = 0;
  int64_t bytes_behind = 0;        // of these: behind the panels, PackedWeight::order or (of rounded ones) input_scales
  PackedWeight* matrix = nullptr;  // where the result goes
  const float** vector = nullptr;
};

/// All slots of a model, checked against the files but not read. `weights` outlives the plan and is filled in by
/// PackWeights or PlaceWeights.
struct WeightPlan {
  std::vector<WeightSlot> slots;
  int64_t bytes = 0;          // of the buffer that holds all slots
  std::vector<DType> dtypes;  // of the packed matrices, those of most bytes first
};

/// Finds every tensor that the rules name, checks types and shapes, and lays the packed weights out. All missing
/// tensors are named in one error; tensors that no rule uses are warned about. `dtype` unset: each matrix in the type
/// it is stored in (the two halves of a gated matrix in fp32 where they differ). `quantized`: the layers' matrices that
/// are stored in plain types are rounded to this coded type; with `dtype` too, they are widened to that again.
Result<WeightPlan> PlanWeights(const DecoderSpec& spec, const WeightRules& rules, const TensorSource& source,
                               std::optional<DType> dtype, ModelWeights& weights,
                               std::optional<DType> quantized = std::nullopt);

/// Packs all slots into one new buffer, in stripes of at most 16 MiB on all threads, giving mapped pages back behind
/// itself. NaN and infinity are errors naming the tensor.
Result<Buffer> PackWeights(const WeightPlan& plan, ThreadPool& pool,
                           const std::function<void(int64_t, int64_t)>& progress);

/// Points the weights at `data`, which holds them as the plan lays them out (plan.bytes bytes).
void PlaceWeights(const WeightPlan& plan, const std::byte* data);

/// A fingerprint of spec and tensors: names, types, shapes and samples of each tensor's bytes. 32 hex digits.
std::string FingerprintModel(const DecoderSpec& spec, const TensorSource& source);

}  // namespace kvasir
