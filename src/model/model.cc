#include "model/model.h"

#include <algorithm>

#include "base/log.h"
#include "model/forward.h"
#include "model/memory_plan.h"
#include "model/packed_file.h"
#include "model/token_tree.h"
#include "model/weights.h"

namespace kvasir {

struct Model::Impl {
  DecoderSpec spec;
  ModelWeights weights;
  Buffer buffer;      // packed weights, unless they are mapped
  PackedFile packed;  // … from here
  WeightPlan plan;    // its slots point at tensors that are gone after loading
  std::string hash;
  std::string model_name;
  std::vector<MatrixInfo> matrices;
  std::vector<KvLayerShape> kv_shapes;
  int64_t parameters = 0;
};

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

namespace {

/// What each packed matrix was made of.
std::vector<MatrixInfo> DescribeMatrices(const WeightPlan& plan) {
  std::vector<MatrixInfo> matrices;
  for (const WeightSlot& slot : plan.slots) {
    if (!slot.matrix) continue;
    MatrixInfo info{.name = slot.name, .weight = *slot.matrix};
    for (const auto* segments : {&slot.gate_segments, &slot.segments}) {
      for (const RowSegment& segment : *segments) {
        const std::vector<int64_t>& shape = segment.tensor->shape;
        const bool several = shape.size() == 3 && shape[0] > 1;
        info.parts.push_back(
            {.tensor = segment.tensor->name, .matrix = several ? segment.slice_offset / (shape[1] * shape[2]) : -1});
      }
    }
    matrices.push_back(std::move(info));
  }
  return matrices;
}

/// A tied embedding is the head; Linear has no shape of its own then.
void TieHead(const DecoderSpec& spec, ModelWeights& weights) {
  if (spec.head.tied) weights.head.weight = weights.embedding;
}

/// The packed file that `path` is or that lies beside it; empty when there is none.
std::filesystem::path PackedPath(const std::filesystem::path& path, const ModelFiles& files) {
  const std::filesystem::path packed = IsPackedFile(path) ? path : PackedFileFor(files.path);
  std::error_code error;
  return std::filesystem::exists(packed, error) ? packed : std::filesystem::path();
}

/// That file mapped, if it was made from these weights; else data is null.
PackedFile MapPacked(const std::filesystem::path& path, const WeightPlan& plan, const std::string& hash) {
  if (path.empty()) return {};
  auto packed = OpenPackedFile(path, plan, hash);
  if (packed.ok()) return *std::move(packed);
  LogWarning("{}; packing again", packed.status().message());
  return {};
}

}  // namespace

Result<WeightNeed> PlanWeightMemory(const std::filesystem::path& path, const ModelFiles& files,
                                    const LoadOptions& options, int threads) {
  ASSIGN_OR_RETURN(const WeightRules rules, RulesFor(files));
  ModelWeights weights;
  ASSIGN_OR_RETURN(const WeightPlan plan,
                   PlanWeights(files.spec, rules, *files.source, options.dtype, weights, options.weights));
  const std::filesystem::path packed_path = PackedPath(path, files);
  // The fingerprint reads a little of every tensor, which nobody needs without a packed file.
  const bool mapped =
      !packed_path.empty() && MapPacked(packed_path, plan, FingerprintModel(files.spec, *files.source)).data != nullptr;
  return NeedOfWeights(plan, mapped, threads);
}

Result<WeightRules> RulesFor(const ModelFiles& files) {
  for (const ModelFamily& family : ModelFamilies()) {
    if (family.name != files.spec.family) continue;
    return files.gguf ? family.rules_gguf(files.spec, *files.gguf) : family.rules(files.spec, *files.source);
  }
  return Internal("no family is named \"{}\"", files.spec.family);
}

Result<std::unique_ptr<Model>> Model::Load(const std::filesystem::path& path, const LoadOptions& options,
                                           ThreadPool& pool) {
  ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles(path));
  ASSIGN_OR_RETURN(const WeightRules rules, RulesFor(files));
  auto impl = std::make_unique<Impl>();
  impl->spec = std::move(files.spec);
  ASSIGN_OR_RETURN(impl->plan,
                   PlanWeights(impl->spec, rules, *files.source, options.dtype, impl->weights, options.weights));
  impl->hash = FingerprintModel(impl->spec, *files.source);
  RETURN_IF_ERROR(ApplyRopeOverride(options.rope, impl->spec));  // packed weights are the same with any rotation
  impl->model_name = files.path == files.folder ? "." : files.path.filename().string();

  impl->packed = MapPacked(PackedPath(path, files), impl->plan, impl->hash);
  const bool mapped = impl->packed.data != nullptr;
  if (options.planned) {
    RETURN_IF_ERROR(options.planned(impl->spec, NeedOfWeights(impl->plan, mapped, pool.size())));
  }
  if (mapped) PlaceWeights(impl->plan, impl->packed.data);
  if (!mapped) {
    auto buffer = PackWeights(impl->plan, pool, options.progress);
    if (!buffer.ok()) return buffer.status().WithContext(files.source->description());
    impl->buffer = *std::move(buffer);
  }
  TieHead(impl->spec, impl->weights);
  impl->parameters = ParameterCount(impl->spec);
  impl->kv_shapes = KvShapes(impl->spec);
  impl->matrices = DescribeMatrices(impl->plan);
  // The raw tensors go with `files`; nothing may point at them any more.
  for (WeightSlot& slot : impl->plan.slots) {
    slot.segments.clear();
    slot.gate_segments.clear();
    slot.order = {};
  }
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

const DecoderSpec& Model::spec() const { return impl_->spec; }
DType Model::dtype() const { return dtypes().empty() ? DType::kF32 : dtypes().front(); }
std::span<const DType> Model::dtypes() const { return impl_->plan.dtypes; }
std::span<const MatrixInfo> Model::matrices() const { return impl_->matrices; }
int64_t Model::weight_bytes() const { return impl_->plan.bytes; }
int64_t Model::parameter_count() const { return impl_->parameters; }
std::span<const KvLayerShape> Model::kv_shapes() const { return impl_->kv_shapes; }
const std::string& Model::hash() const { return impl_->hash; }

int64_t Model::StepWeightBytes(int64_t tokens, int64_t outputs) const {
  const ModelWeights& w = impl_->weights;
  int64_t total = impl_->plan.bytes;
  // Of the embedding only the tokens' rows are read, unless it is also the head and there are outputs.
  const bool reads_all = impl_->spec.head.tied && outputs > 0;
  if (!reads_all) {
    total -= w.embedding.bytes();
    total += tokens * w.embedding.row_bytes();
  }
  if (!impl_->spec.head.tied && outputs == 0) total -= w.head.weight.bytes();
  if (w.positions.data) {
    total -= w.positions.bytes();
    total += tokens * w.positions.row_bytes();
  }
  for (size_t i = 0; i < w.layers.size(); ++i) {
    const MoeSpec& moe = impl_->spec.layers[i].ffn.moe;
    if (moe.n_experts == 0) continue;
    const int64_t used = std::min<int64_t>(moe.n_experts, moe.top_k * tokens);
    const FfnWeights& one = w.layers[i].experts[0];
    total -= (moe.n_experts - used) * (one.up.weight.bytes() + one.down.weight.bytes());
  }
  return total;
}

int64_t Model::StepMatMulFlops(int64_t tokens, int64_t outputs) const {
  const ModelWeights& w = impl_->weights;
  const auto flops = [](const PackedWeight& matrix, int64_t rows) { return 2 * rows * matrix.rows * matrix.cols; };
  int64_t total = flops(w.head.weight, outputs) + flops(w.project_in, tokens) + flops(w.project_out, outputs);
  for (size_t i = 0; i < w.layers.size(); ++i) {
    const LayerWeights& layer = w.layers[i];
    for (const PackedWeight& part : layer.qkv) total += flops(part, tokens);
    total += flops(layer.out.weight, tokens) + flops(layer.router.weight, tokens);
    total += flops(layer.ffn.up.weight, tokens) + flops(layer.ffn.down.weight, tokens);
    if (!layer.experts.empty()) {
      const int64_t rows = tokens * impl_->spec.layers[i].ffn.moe.top_k;
      total += flops(layer.experts[0].up.weight, rows) + flops(layer.experts[0].down.weight, rows);
    }
  }
  return total;
}

namespace {

/// Tokens of the longest path.
Result<int64_t> CheckTree(std::span<const int32_t> parents, const KvCache& cache) {
  if (!cache.SlotsArePositions()) return Unsupported("a tree of tokens in a cache that forgets tokens");
  for (size_t t = 0; t < parents.size(); ++t) {
    if (parents[t] < -1 || parents[t] >= static_cast<int64_t>(t)) {
      return InvalidArgument("token {} of a tree follows token {}; parents come before their children, -1 is the text",
                             t, parents[t]);
    }
  }
  return std::ranges::max(TokenDepths(parents)) + 1;
}

}  // namespace

Result<MatView<float>> Model::Forward(ExecContext& ctx, const ForwardBatch& batch, KvCache& cache) const {
  const DecoderSpec& spec = impl_->spec;
  const int64_t tokens = static_cast<int64_t>(batch.tokens.size());
  for (int32_t id : batch.tokens) {
    if (id < 0 || id >= spec.vocab_size) {
      return InvalidArgument("token id {} is outside the vocabulary of {}", id, spec.vocab_size);
    }
  }
  if (!batch.parents.empty() && static_cast<int64_t>(batch.parents.size()) != tokens) {
    return InvalidArgument("{} parents of {} tokens", batch.parents.size(), tokens);
  }
  int64_t expected = 0;
  const auto* learned = std::get_if<LearnedPosition>(&spec.position);
  for (const ForwardSequence& sequence : batch.sequences) {
    if (sequence.first_token != expected || sequence.count <= 0 || sequence.count > tokens - expected) {
      return InvalidArgument("the batch's sequences do not divide its {} tokens", tokens);
    }
    expected += sequence.count;
    int64_t length = sequence.count;
    if (!batch.parents.empty()) {
      ASSIGN_OR_RETURN(length, CheckTree(std::span(batch.parents)
                                             .subspan(static_cast<size_t>(sequence.first_token),
                                                      static_cast<size_t>(sequence.count)),
                                         cache));
    }
    const int64_t end = cache.NextPosition(sequence.seq) + length;
    if (learned && end + learned->offset > learned->rows) {
      return InvalidArgument("position {} is beyond the model's table of {} learned positions; shorten the text", end,
                             learned->rows - learned->offset);
    }
  }
  if (expected != tokens || tokens == 0) {
    return InvalidArgument("the batch's sequences hold {} of its {} tokens", expected, tokens);
  }
  for (int32_t row : batch.output_rows) {
    if (row < 0 || row >= tokens) return InvalidArgument("output row {} is not in the batch of {}", row, tokens);
  }
  return RunForward(ctx, spec, impl_->weights, batch, cache);
}

Status Model::Logits(ExecContext& ctx, MatView<const float> hidden, MatView<float> logits) const {
  return RunHead(ctx, impl_->spec, impl_->weights, hidden, logits);
}

Status Model::WritePacked(const std::filesystem::path& file) const {
  const std::byte* data = impl_->packed.data ? impl_->packed.data : impl_->buffer.data();
  return WritePackedFile(file, impl_->plan, data, impl_->hash, impl_->model_name);
}

}  // namespace kvasir
