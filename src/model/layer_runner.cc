#include "model/layer_runner.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "model/weight_rules.h"

namespace kvasir {
namespace {

/// Where a matrix stands in its layer, by the place that its slot fills.
struct Place {
  LayerPart part;
  bool router;
};
Place PlaceOf(const PackedWeight* matrix, const LayerWeights& layer) {
  if (matrix == &layer.out.weight) return {LayerPart::kOut, false};
  if (matrix == &layer.router.weight) return {LayerPart::kUp, true};
  const auto is_up = [&](const FfnWeights& ffn) { return matrix == &ffn.up.weight; };
  const auto is_down = [&](const FfnWeights& ffn) { return matrix == &ffn.down.weight; };
  if (is_up(layer.ffn) || std::ranges::any_of(layer.experts, is_up)) return {LayerPart::kUp, false};
  if (is_down(layer.ffn) || std::ranges::any_of(layer.experts, is_down)) return {LayerPart::kDown, false};
  return {LayerPart::kQkv, false};
}

SourceMatrix SourceOf(const RowSegment& segment) {
  return {.tensor = segment.tensor, .transposed = segment.transposed, .slice_offset = segment.slice_offset};
}

/// The slots that `wanted` says yes to, laid out anew.
template <typename Wanted>
WeightPlan PartOf(const WeightPlan& plan, const Wanted& wanted) {
  WeightPlan part;
  for (const WeightSlot& slot : plan.slots) {
    if (!wanted(slot)) continue;
    part.slots.push_back(slot);
    part.slots.back().offset = part.bytes;
    part.bytes += RoundUp(slot.bytes, 64);
  }
  return part;
}

/// values[first + i · step] → the packed fp32 rows at + i: a line holds one input of 16 rows.
void WriteRows(const float* values, const RowSegment& segment, int64_t cols, int64_t at, bool gated, bool gate,
               std::byte* data) {
  auto* const out = reinterpret_cast<float*>(data);
  for (int64_t i = 0; i < segment.count; ++i) {
    const int64_t row = at + i;
    const int64_t panel = gated ? row / kPanelRows * 2 + (gate ? 0 : 1) : row / kPanelRows;
    float* const to = out + panel * RoundUp(cols, kWeightColAlign) * kPanelRows + row % kPanelRows;
    const float* const from = values + (segment.first + i * segment.step) * cols;
    for (int64_t k = 0; k < cols; ++k) to[k * kPanelRows] = from[k];
  }
}

}  // namespace

int64_t SourceMatrix::rows() const {
  const std::vector<int64_t>& shape = tensor->shape;
  return shape[shape.size() - (transposed ? 1 : 2)];
}

int64_t SourceMatrix::cols() const {
  const std::vector<int64_t>& shape = tensor->shape;
  return shape[shape.size() - (transposed ? 2 : 1)];
}

struct LayerRunner::Impl {
  ThreadPool* pool = nullptr;
  ModelFiles files;
  ModelWeights weights;
  WeightPlan plan;  // of the whole model
  WeightPlan loaded;
  Buffer buffer;
  int layer = -1;
  std::vector<LayerMatrix> matrices;
  std::unique_ptr<KvCache> cache;  // of the loaded layer, for one sample
  SeqId sequence = 0;
  int64_t cache_tokens = 0;

  /// A cache for samples of this length in the loaded layer.
  Status MakeCache(int64_t tokens) {
    if (cache && cache_tokens == tokens) return OkStatus();
    const AttentionSpec& attention = files.spec.layers[static_cast<size_t>(layer)].attention;
    const KvLayerShape shape{attention.n_kv_heads, attention.head_dim};
    ASSIGN_OR_RETURN(
        cache, MakeKvCache(CacheKind::kDynamic,
                           {.layers = {&shape, 1}, .type = KvType::kF32, .max_tokens = tokens, .max_sequences = 1}));
    ASSIGN_OR_RETURN(sequence, cache->Create());
    if (!cache->Reserve(sequence, tokens)) {
      return ResourceExhausted("no memory for the keys and values of {} tokens; use shorter samples", tokens);
    }
    cache_tokens = tokens;
    return OkStatus();
  }

  ForwardBatch OneSample(int64_t tokens) const {
    ForwardBatch batch;
    batch.tokens.resize(static_cast<size_t>(tokens));
    batch.sequences = {{.seq = sequence, .count = static_cast<int32_t>(tokens), .planned_length = tokens}};
    return batch;
  }
};

LayerRunner::LayerRunner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LayerRunner::~LayerRunner() = default;

const ModelFiles& LayerRunner::files() const { return impl_->files; }
std::span<const LayerMatrix> LayerRunner::matrices() const { return impl_->matrices; }

Result<std::unique_ptr<LayerRunner>> LayerRunner::Open(const std::filesystem::path& path, ThreadPool& pool) {
  auto impl = std::make_unique<Impl>();
  impl->pool = &pool;
  ASSIGN_OR_RETURN(impl->files, OpenModelFiles(path));
  ASSIGN_OR_RETURN(const WeightRules rules, RulesFor(impl->files));
  ASSIGN_OR_RETURN(impl->plan, PlanWeights(impl->files.spec, rules, *impl->files.source, DType::kF32, impl->weights));
  return std::unique_ptr<LayerRunner>(new LayerRunner(std::move(impl)));
}

Status LayerRunner::Embed(ExecContext& ctx, std::span<const std::vector<int32_t>> samples, MatView<float> x) {
  const DecoderSpec& spec = this->spec();
  const int64_t length = samples.empty() ? 0 : static_cast<int64_t>(samples[0].size());
  const auto* learned = std::get_if<LearnedPosition>(&spec.position);
  if (learned && length + learned->offset > learned->rows) {
    return InvalidArgument(
        "samples of {} tokens are beyond the model's table of {} learned positions; use shorter ones", length,
        learned->rows - learned->offset);
  }
  const WeightPlan plan = PartOf(impl_->plan, [](const WeightSlot& slot) {
    return slot.name == "embedding" || slot.name == "positions" || slot.name == "project_in" ||
           slot.name.starts_with("embedding_norm.");
  });
  ASSIGN_OR_RETURN(const Buffer buffer, PackWeights(plan, *impl_->pool, {}));
  impl_->layer = 0;
  RETURN_IF_ERROR(impl_->MakeCache(length));
  ForwardBatch batch = impl_->OneSample(length);
  for (size_t s = 0; s < samples.size(); ++s) {
    KVASIR_CHECK(static_cast<int64_t>(samples[s].size()) == length);
    for (int32_t id : samples[s]) {
      if (id < 0 || id >= spec.vocab_size) {
        return InvalidArgument("token id {} is outside the vocabulary of {}", id, spec.vocab_size);
      }
    }
    batch.tokens = samples[s];
    ctx.scratch->Reset();
    RETURN_IF_ERROR(RunEmbedding(ctx, spec, impl_->weights, batch, *impl_->cache,
                                 x.Rows(static_cast<int64_t>(s) * length, length)));
  }
  return OkStatus();
}

Status LayerRunner::LoadLayer(int layer) {
  impl_->buffer = Buffer();
  impl_->cache.reset();
  impl_->matrices.clear();
  const std::string prefix = fmt::format("layers.{}.", layer);
  impl_->loaded = PartOf(impl_->plan, [&](const WeightSlot& slot) { return slot.name.starts_with(prefix); });
  ASSIGN_OR_RETURN(impl_->buffer, PackWeights(impl_->loaded, *impl_->pool, {}));
  impl_->layer = layer;
  const LayerWeights& weights = impl_->weights.layers[static_cast<size_t>(layer)];
  for (const WeightSlot& slot : impl_->loaded.slots) {
    if (!slot.matrix) continue;
    const Place place = PlaceOf(slot.matrix, weights);
    LayerMatrix matrix{
        .name = slot.name, .part = place.part, .router = place.router, .data = slot.matrix->data, .cols = slot.cols};
    for (const auto* segments : {&slot.gate_segments, &slot.segments}) {
      for (const RowSegment& segment : *segments) {
        const SourceMatrix source = SourceOf(segment);
        if (std::ranges::find(matrix.sources, source) == matrix.sources.end()) matrix.sources.push_back(source);
      }
    }
    impl_->matrices.push_back(std::move(matrix));
  }
  return OkStatus();
}

Status LayerRunner::Run(ExecContext& ctx, LayerPart last, MatView<float> x) {
  KVASIR_CHECK(impl_->layer >= 0);
  RETURN_IF_ERROR(impl_->MakeCache(x.rows));
  ctx.scratch->Reset();
  return RunSingleLayer(ctx, spec(), impl_->weights.layers[static_cast<size_t>(impl_->layer)], impl_->layer,
                        impl_->OneSample(x.rows), *impl_->cache, last, x);
}

Status LayerRunner::Read(const SourceMatrix& source, float* out) const {
  PackedWeight packed;
  WeightPlan plan;
  plan.slots.push_back({.name = source.tensor->name,
                        .segments = {{.tensor = source.tensor,
                                      .count = source.rows(),
                                      .transposed = source.transposed,
                                      .slice_offset = source.slice_offset}},
                        .rows = source.rows(),
                        .cols = source.cols(),
                        .format = WeightFormat::kF32,
                        .matrix = &packed});
  plan.bytes = PackedWeight{WeightFormat::kF32, source.rows(), source.cols(), nullptr}.bytes();
  plan.slots[0].bytes = plan.bytes;
  ASSIGN_OR_RETURN(const Buffer buffer, PackWeights(plan, *impl_->pool, {}));
  impl_->pool->ParallelFor(source.rows(), kPanelRows, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) UnpackRow(packed, r, out + r * source.cols());
  });
  return OkStatus();
}

void LayerRunner::Replace(const SourceMatrix& source, const float* values) {
  for (const WeightSlot& slot : impl_->loaded.slots) {
    if (!slot.matrix) continue;
    for (const bool gate : {true, false}) {
      int64_t at = 0;
      for (const RowSegment& segment : gate ? slot.gate_segments : slot.segments) {
        if (SourceOf(segment) == source) {
          WriteRows(values, segment, slot.cols, at, slot.gated, gate, impl_->buffer.data() + slot.offset);
        }
        at += segment.count;
      }
    }
  }
}

}  // namespace kvasir
