// Rules → segments of checked tensors → slots laid out in one buffer.
#include <algorithm>
#include <functional>
#include <initializer_list>
#include <set>
#include <string_view>

#include "base/checked.h"
#include "base/log.h"
#include "kernels/quant_pack.h"
#include "model/weights.h"
#include "quant/coded_blocks.h"
#include "quant/gguf_blocks.h"

namespace kvasir {
namespace {

constexpr int64_t kSlotAlignment = 64;

std::string ShapeText(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

bool IsFloatTensor(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kF64:
    case DType::kF8E4M3:
    case DType::kF8E5M2: return true;
    default: return IsGgufBlockType(type) || IsCodedType(type);
  }
}

WeightFormat FormatOf(DType type) {
  if (const auto block_format = BlockFormatOf(type)) return *block_format;
  if (type == DType::kBF16) return WeightFormat::kBF16;
  if (type == DType::kF16) return WeightFormat::kF16;
  return WeightFormat::kF32;
}

DType TypeOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32: return DType::kF32;
    case WeightFormat::kF16: return DType::kF16;
    case WeightFormat::kBF16: return DType::kBF16;
    default: return *BlockTypeOf(format);
  }
}

std::span<const int32_t> OrderOf(const RowSegment& segment) {
  return segment.tensor->rows ? segment.tensor->rows->order() : std::span<const int32_t>();
}

/// The format of all the segments, or nothing when they differ, or their columns' order does.
std::optional<WeightFormat> CommonFormat(const std::vector<RowSegment>& segments) {
  std::optional<WeightFormat> format;
  for (const RowSegment& segment : segments) {
    const WeightFormat own = FormatOf(segment.tensor->dtype);
    if (format && *format != own) return std::nullopt;
    if (!std::ranges::equal(OrderOf(segment), OrderOf(segments.front()))) return std::nullopt;
    format = own;
  }
  return format;
}

class Planner {
 public:
  Planner(const TensorSource& source, std::optional<DType> dtype, std::optional<DType> quantized)
      : source_(source), dtype_(dtype), quantized_(quantized) {}

  /// Matrices planned from now on belong to layers, and are rounded if that is asked for.
  void BeginLayers() { rounds_ = quantized_.has_value(); }
  void EndLayers() { rounds_ = false; }

  /// One matrix [rows, cols] whose rows come from several weights one after another.
  Status Matrix(std::string name, std::initializer_list<std::pair<const WeightRule*, int64_t>> parts, int64_t cols,
                PackedWeight& target, bool normalize_rows = false) {
    WeightSlot slot{.name = std::move(name), .cols = cols, .normalize_rows = normalize_rows, .matrix = &target};
    for (const auto& [rule, rows] : parts) {
      RETURN_IF_ERROR(Resolve(*rule, rows, cols, slot.segments));
      slot.rows += rows;
    }
    return AddMatrix(std::move(slot));
  }

  /// Consecutive matrices [rows, cols] in as few packed ones as their formats allow.
  Status Matrices(const std::string& name, std::initializer_list<std::pair<const WeightRule*, int64_t>> parts,
                  int64_t cols, std::vector<PackedWeight>& targets) {
    std::vector<WeightSlot> slots;
    for (const auto& [rule, rows] : parts) {
      WeightSlot slot{.name = name, .rows = rows, .cols = cols};
      RETURN_IF_ERROR(Resolve(*rule, rows, cols, slot.segments));
      WeightSlot* const last = slots.empty() ? nullptr : &slots.back();
      const bool joins = last && (dtype_ || Agree(*last, slot));
      if (joins) {
        last->segments.insert(last->segments.end(), slot.segments.begin(), slot.segments.end());
        last->rows += rows;
      } else {
        slots.push_back(std::move(slot));
      }
    }
    targets.resize(slots.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots.size() > 1) slots[i].name = fmt::format("{}.{}", name, i);
      slots[i].matrix = &targets[i];
      RETURN_IF_ERROR(AddMatrix(std::move(slots[i])));
    }
    return OkStatus();
  }

  /// Gate and up rows in alternating panels; both [width, cols].
  Status Gated(std::string name, const WeightRule& gate, const WeightRule& up, int64_t width, int64_t cols,
               PackedWeight& target) {
    WeightSlot slot{.name = std::move(name), .cols = cols, .gated = true, .matrix = &target};
    RETURN_IF_ERROR(Resolve(gate, width, cols, slot.gate_segments));
    RETURN_IF_ERROR(Resolve(up, width, cols, slot.segments));
    slot.rows = 2 * RoundUp(width, kPanelRows);
    return AddMatrix(std::move(slot));
  }

  /// An fp32 vector; a part of null stands for zeros. Padded to whole panels.
  Status Vector(std::string name, std::initializer_list<std::pair<const WeightRule*, int64_t>> parts,
                const float*& target) {
    WeightSlot slot{.name = std::move(name), .vector = &target};
    for (const auto& [rule, rows] : parts) {
      RETURN_IF_ERROR(Resolve(*rule, rows, 1, slot.segments));
      slot.rows += rows;
    }
    const int64_t bytes = RoundUp(slot.rows, kPanelRows) * 4;
    return Add(std::move(slot), bytes);
  }

  Status GatedVector(std::string name, const WeightRule& gate, const WeightRule& up, int64_t width,
                     const float*& target) {
    WeightSlot slot{.name = std::move(name), .gated = true, .vector = &target};
    RETURN_IF_ERROR(Resolve(gate, width, 1, slot.gate_segments));
    RETURN_IF_ERROR(Resolve(up, width, 1, slot.segments));
    slot.rows = 2 * RoundUp(width, kPanelRows);
    const int64_t bytes = slot.rows * 4;
    return Add(std::move(slot), bytes);
  }

  Status AddNorm(const std::string& name, const std::optional<NormSpec>& spec, const NormRule& rule, int64_t width,
                 Norm& target) {
    if (!spec) return OkStatus();
    if (spec->has_weight) RETURN_IF_ERROR(Vector(name + ".weight", {{&rule.weight, width}}, target.weight));
    if (spec->has_bias) RETURN_IF_ERROR(Vector(name + ".bias", {{&rule.bias, width}}, target.bias));
    return OkStatus();
  }

  /// The plan, or one error naming all missing tensors.
  Result<WeightPlan> Finish(const WeightRules& rules) {
    if (!missing_.empty()) {
      constexpr size_t kShown = 64;
      std::vector<std::string> shown(missing_.begin(), missing_.end());
      const size_t total = shown.size();
      shown.resize(std::min(total, kShown));
      return InvalidData("{}: {} tensor{} missing: \"{}\"{}; the checkpoint is incomplete or of another family",
                         source_.description(), total, total == 1 ? " is" : "s are", fmt::join(shown, "\", \""),
                         total > kShown ? fmt::format(" and {} more", total - kShown) : "");
    }
    if (quantized_ && rounded_ == 0) {
      return InvalidArgument("{}: its layers are quantised already; --weights {} is for those in f32, f16 or bf16",
                             source_.description(), DTypeName(*quantized_));
    }
    WarnOfUnused(rules);
    int64_t by_format[kWeightFormats] = {};
    for (const WeightSlot& slot : plan_.slots) {
      if (slot.matrix) by_format[static_cast<int>(slot.format)] += slot.bytes;
    }
    for (int f = 0; f < kWeightFormats; ++f) {
      if (by_format[f] > 0) plan_.dtypes.push_back(TypeOf(static_cast<WeightFormat>(f)));
    }
    std::ranges::stable_sort(plan_.dtypes, std::greater{},
                             [&](DType type) { return by_format[static_cast<int>(FormatOf(type))]; });
    return std::move(plan_);
  }

 private:
  static bool Agree(const WeightSlot& a, const WeightSlot& b) {
    if (a.segments.empty() || b.segments.empty()) return true;  // tensors are missing, which is told later
    return CommonFormat(a.segments) == CommonFormat(b.segments) &&
           std::ranges::equal(OrderOf(a.segments.front()), OrderOf(b.segments.front()));
  }

  Status Resolve(const WeightRule& rule, int64_t rows, int64_t cols, std::vector<RowSegment>& segments) {
    int64_t found = 0;
    bool complete = true;
    std::string_view last_name = "a weight";
    for (const RowRule& row_rule : rule.rows) {
      last_name = row_rule.tensor;
      const RawTensor* tensor = source_.Find(row_rule.tensor);
      if (!tensor) {
        missing_.insert(row_rule.tensor);
        complete = false;
        continue;
      }
      used_.insert(tensor);
      RowSegment segment;
      RETURN_IF_ERROR(CheckSegment(row_rule, *tensor, cols, segment));
      found += segment.count;
      segments.push_back(segment);
    }
    if (rule.rows.empty()) {
      return Internal("{}: the family has no rule for a weight that its spec demands", source_.description());
    }
    if (complete && found != rows) {
      const RawTensor* tensor = source_.Find(last_name);
      return InvalidData("{}: tensor \"{}\"{} gives {} rows where the config demands {}", source_.description(),
                         last_name, tensor ? " of shape " + ShapeText(tensor->shape) : "", found, rows);
    }
    return OkStatus();
  }

  Status CheckSegment(const RowRule& rule, const RawTensor& tensor, int64_t cols, RowSegment& segment) const {
    const auto wrong = [&](std::string_view why) {
      return InvalidData("{}: tensor \"{}\" of shape {} and type {} {}", source_.description(), tensor.name,
                         ShapeText(tensor.shape), DTypeName(tensor.dtype), why);
    };
    if (!IsFloatTensor(tensor.dtype)) return wrong("is no floating-point weight");
    std::vector<int64_t> shape = tensor.shape;
    segment.tensor = &tensor;
    if (rule.slice >= 0) {
      if (shape.size() != 3 || rule.slice >= shape[0]) {
        return wrong(fmt::format("has no matrix {} along a first dimension", rule.slice));
      }
      segment.slice_offset = rule.slice * shape[1] * shape[2];
      shape.erase(shape.begin());
    }
    if (cols == 1 && shape.size() == 1) shape.push_back(1);
    // Scalars per channel may be stored as [1, 1, n] and the like; a matrix must be two-dimensional.
    if (shape.size() != 2) return wrong("is not a matrix");
    int64_t rows = shape[0];
    int64_t row_size = shape[1];
    const bool transposed = rule.transposed && !tensor.rows;  // made rows are never columns
    if (transposed) std::swap(rows, row_size);
    if (row_size != cols)
      return wrong(fmt::format("has rows of {} values where the config demands {}", row_size, cols));
    const bool block_type = DTypeBlockSize(tensor.dtype) > 1;
    if (block_type && (transposed || cols % DTypeBlockSize(tensor.dtype) != 0)) {
      return wrong(fmt::format("cannot be cut into rows: {} values do not divide into blocks of {}", cols,
                               DTypeBlockSize(tensor.dtype)));
    }
    segment.first = rule.first;
    segment.step = rule.step;
    segment.transposed = transposed;
    segment.count = rule.count >= 0 ? rule.count : CeilDiv(std::max<int64_t>(rows - rule.first, 0), rule.step);
    const int64_t last = segment.first + (segment.count - 1) * segment.step;
    if (segment.first < 0 || (segment.count > 0 && last >= rows)) {
      return wrong(fmt::format("has {} rows; rows up to {} are needed", rows, last));
    }
    return OkStatus();
  }

  Status AddMatrix(WeightSlot slot) {
    ChooseFormat(slot);
    const PackedWeight shape{.format = slot.format, .rows = slot.rows, .cols = slot.cols};
    // No format takes more than four bytes a value, and no line is longer than this many columns.
    constexpr int64_t kLongestLine = 256;
    const auto size = CheckedMul(CheckedMul(slot.rows, RoundUp(slot.cols, kLongestLine)).value_or(-1), int64_t{4});
    if (!size || *size < 0 || *size > (int64_t{1} << 46)) {
      return InvalidData("{}: {} would have {} x {} values", source_.description(), slot.name, slot.rows, slot.cols);
    }
    slot.bytes_behind = static_cast<int64_t>(slot.order.size_bytes());
    if (slot.quantized) slot.bytes_behind = slot.cols * static_cast<int64_t>(sizeof(float));
    const int64_t bytes = shape.bytes() + slot.bytes_behind;
    return Add(std::move(slot), bytes);
  }

  void ChooseFormat(WeightSlot& slot) {
    std::vector<RowSegment> all = slot.segments;
    all.insert(all.end(), slot.gate_segments.begin(), slot.gate_segments.end());
    slot.format = FormatOfAll(slot, all);
    if (rounds_ && GetQuantLayout(slot.format) == nullptr) {
      slot.quantized = quantized_;
      slot.format = FormatOf(*quantized_);
      ++rounded_;
    }
    if (dtype_) {
      slot.format = FormatOf(*dtype_);
    } else if (!all.empty() && !slot.quantized && GetQuantLayout(slot.format) != nullptr) {
      slot.order = OrderOf(all.front());
    }
  }

  /// The format that the parts of a slot are stored in, or fp32.
  static WeightFormat FormatOfAll(const WeightSlot& slot, const std::vector<RowSegment>& all) {
    if (all.empty()) return WeightFormat::kF32;  // tensors are missing, which is told later
    const auto format = CommonFormat(all);
    if (!format) {
      LogWarning("{}: parts of different types or orders of inputs, kept in fp32", slot.name);
      return WeightFormat::kF32;
    }
    // Rows of another length than the stored ones are no multiples of their blocks' scales.
    if (slot.normalize_rows && GetQuantLayout(*format)) return WeightFormat::kF32;
    return *format;
  }

  Status Add(WeightSlot slot, int64_t bytes) {
    slot.bytes = bytes;
    slot.offset = plan_.bytes;
    const auto total = CheckedAdd(plan_.bytes, RoundUp(bytes, kSlotAlignment));
    if (!total || *total > (int64_t{1} << 46)) {
      return InvalidData("{}: the weights would need more memory than any machine has", source_.description());
    }
    plan_.bytes = *total;
    plan_.slots.push_back(std::move(slot));
    return OkStatus();
  }

  void WarnOfUnused(const WeightRules& rules) const {
    std::vector<std::string_view> unused;
    for (const RawTensor& tensor : source_.tensors()) {
      if (used_.contains(&tensor)) continue;
      const bool ignored =
          std::any_of(rules.ignored_suffixes.begin(), rules.ignored_suffixes.end(),
                      [&](const std::string& suffix) { return std::string_view(tensor.name).ends_with(suffix); });
      if (!ignored) unused.push_back(tensor.name);
    }
    if (unused.empty()) return;
    const size_t total = unused.size();
    unused.resize(std::min<size_t>(total, 8));
    LogWarning("{}: {} unexpected tensor{} left out: {}{}", source_.description(), total, total == 1 ? "" : "s",
               fmt::join(unused, ", "), total > 8 ? ", …" : "");
  }

  const TensorSource& source_;
  std::optional<DType> dtype_;
  std::optional<DType> quantized_;
  bool rounds_ = false;
  int64_t rounded_ = 0;  // matrices
  WeightPlan plan_;
  std::set<std::string> missing_;
  std::set<const RawTensor*> used_;
};

Status PlanFfn(Planner& planner, const std::string& name, const FfnSpec& spec, const FfnRule& rule, int64_t width,
               FfnWeights& target) {
  if (spec.gated) {
    RETURN_IF_ERROR(
        planner.Gated(name + ".gate_up", rule.gate.weight, rule.up.weight, spec.width, width, target.up.weight));
    if (spec.up_bias) {
      RETURN_IF_ERROR(
          planner.GatedVector(name + ".gate_up.bias", rule.gate.bias, rule.up.bias, spec.width, target.up.bias));
    }
  } else {
    RETURN_IF_ERROR(planner.Matrix(name + ".up", {{&rule.up.weight, spec.width}}, width, target.up.weight));
    if (spec.up_bias) {
      RETURN_IF_ERROR(planner.Vector(name + ".up.bias", {{&rule.up.bias, spec.width}}, target.up.bias));
    }
  }
  RETURN_IF_ERROR(planner.Matrix(name + ".down", {{&rule.down.weight, width}}, spec.width, target.down.weight));
  if (spec.down_bias) {
    RETURN_IF_ERROR(planner.Vector(name + ".down.bias", {{&rule.down.bias, width}}, target.down.bias));
  }
  return OkStatus();
}

Status PlanAttention(Planner& planner, const std::string& name, const AttentionSpec& spec, const LayerRule& rule,
                     int64_t width, LayerWeights& target) {
  const int64_t q = int64_t{spec.n_heads} * spec.head_dim;
  const int64_t kv = int64_t{spec.n_kv_heads} * spec.head_dim;
  RETURN_IF_ERROR(planner.Matrices(name + ".qkv", {{&rule.q.weight, q}, {&rule.k.weight, kv}, {&rule.v.weight, kv}},
                                   width, target.qkv));
  if (spec.qkv_bias) {
    RETURN_IF_ERROR(planner.Vector(name + ".qkv.bias", {{&rule.q.bias, q}, {&rule.k.bias, kv}, {&rule.v.bias, kv}},
                                   target.qkv_bias));
  }
  RETURN_IF_ERROR(planner.Matrix(name + ".out", {{&rule.out.weight, width}}, q, target.out.weight));
  if (spec.out_bias) RETURN_IF_ERROR(planner.Vector(name + ".out.bias", {{&rule.out.bias, width}}, target.out.bias));
  if (spec.qk_norm != QkNorm::kNone) {
    const bool per_head = spec.qk_norm == QkNorm::kPerHead;
    RETURN_IF_ERROR(
        planner.AddNorm(name + ".q_norm", spec.qk_norm_spec, rule.q_norm, per_head ? spec.head_dim : q, target.q_norm));
    RETURN_IF_ERROR(planner.AddNorm(name + ".k_norm", spec.qk_norm_spec, rule.k_norm, per_head ? spec.head_dim : kv,
                                    target.k_norm));
  }
  return OkStatus();
}

Status PlanLayer(Planner& planner, const std::string& name, const LayerSpec& spec, const LayerRule& rule, int64_t width,
                 LayerWeights& target) {
  RETURN_IF_ERROR(planner.AddNorm(name + ".attn_norm", spec.attn_norm, rule.attn_norm, width, target.attn_norm));
  RETURN_IF_ERROR(planner.AddNorm(name + ".attn_branch_norm", spec.attn_branch_norm, rule.attn_branch_norm, width,
                                  target.attn_branch_norm));
  RETURN_IF_ERROR(planner.AddNorm(name + ".attn_residual_norm", spec.attn_residual_norm, rule.attn_residual_norm, width,
                                  target.attn_residual_norm));
  RETURN_IF_ERROR(planner.AddNorm(name + ".ffn_norm", spec.ffn_norm, rule.ffn_norm, width, target.ffn_norm));
  RETURN_IF_ERROR(planner.AddNorm(name + ".ffn_branch_norm", spec.ffn_branch_norm, rule.ffn_branch_norm, width,
                                  target.ffn_branch_norm));
  RETURN_IF_ERROR(planner.AddNorm(name + ".ffn_residual_norm", spec.ffn_residual_norm, rule.ffn_residual_norm, width,
                                  target.ffn_residual_norm));
  RETURN_IF_ERROR(PlanAttention(planner, name, spec.attention, rule, width, target));
  const int64_t n_experts = spec.ffn.moe.n_experts;
  if (n_experts == 0) return PlanFfn(planner, name, spec.ffn, rule.ffn, width, target.ffn);
  if (static_cast<int64_t>(rule.experts.size()) != n_experts) {
    return Internal("{}: rules for {} of {} experts", name, rule.experts.size(), n_experts);
  }
  planner.EndLayers();  // routing is no place to save bits
  RETURN_IF_ERROR(planner.Matrix(name + ".router", {{&rule.router.weight, n_experts}}, width, target.router.weight));
  planner.BeginLayers();
  target.experts.resize(static_cast<size_t>(n_experts));
  for (size_t e = 0; e < target.experts.size(); ++e) {
    RETURN_IF_ERROR(
        PlanFfn(planner, fmt::format("{}.experts.{}", name, e), spec.ffn, rule.experts[e], width, target.experts[e]));
  }
  return OkStatus();
}

}  // namespace

Result<WeightPlan> PlanWeights(const DecoderSpec& spec, const WeightRules& rules, const TensorSource& source,
                               std::optional<DType> dtype, ModelWeights& weights, std::optional<DType> quantized) {
  if (rules.layers.size() != spec.layers.size()) {
    return Internal("rules for {} of {} layers", rules.layers.size(), spec.layers.size());
  }
  Planner planner(source, dtype, quantized);
  const int64_t embedding = spec.embedding_width;
  RETURN_IF_ERROR(planner.Matrix("embedding", {{&rules.embedding, spec.vocab_size}}, embedding, weights.embedding));
  if (const auto* learned = std::get_if<LearnedPosition>(&spec.position)) {
    RETURN_IF_ERROR(planner.Matrix("positions", {{&rules.positions, learned->rows}}, spec.width, weights.positions));
  }
  RETURN_IF_ERROR(
      planner.AddNorm("embedding_norm", spec.embedding_norm, rules.embedding_norm, spec.width, weights.embedding_norm));
  if (spec.project_in) {
    RETURN_IF_ERROR(planner.Matrix("project_in", {{&rules.project_in, spec.width}}, embedding, weights.project_in));
  }
  weights.layers.resize(spec.layers.size());
  planner.BeginLayers();
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    RETURN_IF_ERROR(PlanLayer(planner, fmt::format("layers.{}", i), spec.layers[i], rules.layers[i], spec.width,
                              weights.layers[i]));
  }
  planner.EndLayers();
  RETURN_IF_ERROR(planner.AddNorm("final_norm", spec.final_norm, rules.final_norm, spec.width, weights.final_norm));
  if (spec.project_out) {
    RETURN_IF_ERROR(planner.Matrix("project_out", {{&rules.project_out, embedding}}, spec.width, weights.project_out));
  }
  if (!spec.head.tied) {
    RETURN_IF_ERROR(planner.Matrix("head", {{&rules.head.weight, spec.vocab_size}}, embedding, weights.head.weight,
                                   spec.head.normalized));
  }
  if (spec.head.bias) {
    RETURN_IF_ERROR(planner.Vector("head.bias", {{&rules.head.bias, spec.vocab_size}}, weights.head.bias));
  }
  return planner.Finish(rules);
}

}  // namespace kvasir
