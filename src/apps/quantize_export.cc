// Hugging Face checkpoints as GGUF. Nothing here knows a family: what GGUF's reader would look for is asked of the
// reader's own rules over a draft of the file, and each row is traced back to where the checkpoint's rules find it.
// What the reader makes of the draft's keys must be the checkpoint's spec again, or nothing is written.
#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <map>

#include "apps/quantize_source.h"
#include "apps/quantize_tokenizer.h"
#include "apps/spec_json.h"
#include "io/json.h"
#include "model/rope.h"
#include "model/weights.h"

namespace kvasir::apps {
namespace {

template <typename Test>
const ModelFamily* FindFamily(const Test& test) {
  const auto& families = ModelFamilies();
  const auto at = std::ranges::find_if(families, test);
  return at == families.end() ? nullptr : &*at;
}

/// A weight as both sides' rules name it.
struct WeightPair {
  const WeightRule* source;
  const WeightRule* target;
  bool norm = false;
};

void Add(const WeightRule& source, const WeightRule& target, std::vector<WeightPair>* pairs, bool norm = false) {
  if (!source.empty() && !target.empty()) pairs->push_back({&source, &target, norm});
}
void Add(const NormRule& source, const NormRule& target, std::vector<WeightPair>* pairs) {
  Add(source.weight, target.weight, pairs, true);
  Add(source.bias, target.bias, pairs);
}
void Add(const LinearRule& source, const LinearRule& target, std::vector<WeightPair>* pairs) {
  Add(source.weight, target.weight, pairs);
  Add(source.bias, target.bias, pairs);
}
void Add(const FfnRule& source, const FfnRule& target, std::vector<WeightPair>* pairs) {
  Add(source.gate, target.gate, pairs);
  Add(source.up, target.up, pairs);
  Add(source.down, target.down, pairs);
}

std::vector<WeightPair> Pairs(const DecoderSpec& spec, const WeightRules& source, const WeightRules& target) {
  std::vector<WeightPair> pairs;
  Add(source.embedding, target.embedding, &pairs);
  Add(source.positions, target.positions, &pairs);
  Add(source.embedding_norm, target.embedding_norm, &pairs);
  Add(source.final_norm, target.final_norm, &pairs);
  if (!spec.head.tied) Add(source.head, target.head, &pairs);
  for (size_t i = 0; i < std::min(source.layers.size(), target.layers.size()); ++i) {
    const LayerRule& a = source.layers[i];
    const LayerRule& b = target.layers[i];
    for (const auto norm :
         {&LayerRule::attn_norm, &LayerRule::attn_branch_norm, &LayerRule::attn_residual_norm, &LayerRule::ffn_norm,
          &LayerRule::ffn_branch_norm, &LayerRule::ffn_residual_norm, &LayerRule::q_norm, &LayerRule::k_norm}) {
      Add(a.*norm, b.*norm, &pairs);
    }
    for (const auto linear : {&LayerRule::q, &LayerRule::k, &LayerRule::v, &LayerRule::out, &LayerRule::router}) {
      Add(a.*linear, b.*linear, &pairs);
    }
    if (a.experts.empty()) Add(a.ffn, b.ffn, &pairs);
    for (size_t e = 0; e < std::min(a.experts.size(), b.experts.size()); ++e) Add(a.experts[e], b.experts[e], &pairs);
  }
  return pairs;
}

/// A rule's rows of one tensor, resolved.
struct Run {
  const RowRule* rule;
  const RawTensor* tensor;
  int64_t count;
};

int64_t RowsFrom(const RawTensor& tensor, const RowRule& rule) {
  if (rule.count >= 0) return rule.count;
  const std::vector<int64_t>& shape = tensor.shape;
  if (shape.empty()) return 1;
  if (rule.transposed) return shape.back() - rule.first;
  return shape[rule.slice >= 0 && shape.size() == 3 ? 1 : 0] - rule.first;
}

/// The source's rows of a weight; nothing where the checkpoint has no such tensor.
std::optional<std::vector<Run>> Resolve(const WeightRule& rule, const TensorSource& source) {
  std::vector<Run> runs;
  for (const RowRule& rows : rule.rows) {
    const RawTensor* tensor = source.Find(rows.tensor);
    if (tensor == nullptr) return std::nullopt;
    runs.push_back({&rows, tensor, RowsFrom(*tensor, rows)});
  }
  return runs;
}

int64_t ColumnsOf(const Run& run) {
  const std::vector<int64_t>& shape = run.tensor->shape;
  if (shape.size() <= 1) return 1;
  return run.rule->transposed ? shape[shape.size() - 2] : shape.back();
}

class Exporter {
 public:
  Exporter(ModelFiles files, const ModelFamily& family, const ModelFamily& reader)
      : files_(std::move(files)), family_(family), reader_(reader), arch_(family.gguf_written_as) {}

  Result<QuantizeSource> Run(const std::string& pre) {
    const DecoderSpec& spec = files_.spec;
    ASSIGN_OR_RETURN(rules_, family_.rules(spec, *files_.source));
    {
      ModelWeights unused;  // planning names what is missing or has the wrong shape
      RETURN_IF_ERROR(PlanWeights(spec, rules_, *files_.source, std::nullopt, unused).status());
    }
    WriteKeys();
    ASSIGN_OR_RETURN(std::vector<GgufEntry> tokenizer, TokenizerEntries(files_.folder, spec.vocab_size, pre));
    std::ranges::move(tokenizer, std::back_inserter(out_.entries));
    WriteRope();
    RETURN_IF_ERROR(PlaceTensors());
    RETURN_IF_ERROR(ReadBack(!pre.empty()));
    for (const SourceTensor& tensor : out_.tensors) {
      out_.quantized = out_.quantized || DTypeBlockSize(tensor.dtype) > 1;
    }
    out_.files = std::move(files_);
    return std::move(out_);
  }

 private:
  std::string Key(std::string_view name) const { return fmt::format("{}.{}", arch_, name); }
  void Count(std::string_view name, int64_t value) {
    out_.entries.push_back(GgufUint32(Key(name), static_cast<uint32_t>(std::min<int64_t>(value, UINT32_MAX))));
  }
  void Number(std::string_view name, double value) {
    out_.entries.push_back(GgufFloat32(Key(name), static_cast<float>(value)));
  }

  void WriteKeys() {
    const DecoderSpec& spec = files_.spec;
    const LayerSpec& layer = spec.layers.front();
    out_.entries.push_back(GgufText("general.architecture", arch_));
    out_.entries.push_back(GgufText("general.type", "model"));
    const std::string name = std::filesystem::absolute(files_.folder).lexically_normal().filename().string();
    out_.entries.push_back(GgufText("general.name", name.empty() ? arch_ : name));
    Count("block_count", static_cast<int64_t>(spec.layers.size()));
    Count("context_length", spec.context);
    Count("embedding_length", spec.width);
    Count("feed_forward_length", layer.ffn.width);
    Count("attention.head_count", layer.attention.n_heads);
    Count("attention.head_count_kv", layer.attention.n_kv_heads);
    Count("attention.key_length", layer.attention.head_dim);
    Count("attention.value_length", layer.attention.head_dim);
    Count("vocab_size", spec.vocab_size);
    if (spec.final_norm) {
      Number(spec.final_norm->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
             spec.final_norm->eps);
    }
    if (layer.attention.window > 0) Count("attention.sliding_window", layer.attention.window);
    if (layer.attention.softcap > 0.0f) Number("attn_logit_softcapping", layer.attention.softcap);
    if (spec.head.softcap > 0.0f) Number("final_logit_softcapping", spec.head.softcap);
    if (layer.ffn.moe.n_experts > 0) {
      Count("expert_count", layer.ffn.moe.n_experts);
      Count("expert_used_count", layer.ffn.moe.top_k);
    }
  }

  void AddTable(const char* name, const std::vector<double>& values) {
    std::string bytes;
    for (const double value : values) {
      const auto number = static_cast<float>(value);
      bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
    }
    out_.extra.push_back({name, DType::kF32, {static_cast<int64_t>(values.size())}});
    out_.extra_bytes.push_back(std::move(bytes));
  }

  /// Rotary positions; what GGUF says in other words is said so in the spec that the file must give back.
  void WriteRope() {
    expected_ = files_.spec;
    auto* const rope = std::get_if<RopePosition>(&expected_.position);
    if (rope == nullptr) return;
    using Kind = RopeScaling::Kind;
    RopeScaling& scaling = rope->scaling;
    Count("rope.dimension_count", rope->dim);
    Number("rope.freq_base", rope->theta);
    switch (scaling.kind) {
      case Kind::kLinear:
      case Kind::kYarn:
        out_.entries.push_back(GgufText(Key("rope.scaling.type"), scaling.kind == Kind::kYarn ? "yarn" : "linear"));
        Number("rope.scaling.factor", scaling.factor);
        if (scaling.original_context > 0) Count("rope.scaling.original_context_length", scaling.original_context);
        break;
      case Kind::kLlama3: {
        // GGUF has a table of divisors instead of the formula.
        RopePosition plain = *rope;
        plain.scaling = {};
        const auto before = ComputeRopeFrequencies(plain, expected_.context, expected_.context);
        const auto after = ComputeRopeFrequencies(*rope, expected_.context, expected_.context);
        RopeScaling table;
        for (size_t i = 0; i < before.inverse.size(); ++i) {
          table.frequency_divisors.push_back(before.inverse[i] / after.inverse[i]);
        }
        scaling = table;
        AddTable("rope_freqs.weight", scaling.frequency_divisors);
        break;
      }
      case Kind::kLongRope: {
        const auto factors = ComputeRopeFrequencies(*rope, expected_.context, expected_.context);
        scaling.attention_factor = factors.attention_factor;
        Count("rope.scaling.original_context_length", scaling.original_context);
        Number("rope.scaling.attn_factor", factors.attention_factor);
        AddTable("rope_factors_long.weight", scaling.long_factor);
        AddTable("rope_factors_short.weight", scaling.short_factor);
        break;
      }
      default: break;  // dynamic NTK has no words in GGUF: reading back says so
    }
  }

  /// Tensors that tell the reader's rules which of several forms the file has.
  std::vector<GgufTensor> Hints() const {
    const DecoderSpec& spec = files_.spec;
    std::vector<GgufTensor> hints = {{"token_embd.weight", DType::kF16, {spec.vocab_size, spec.width}}};
    for (size_t i = 0; i < spec.layers.size(); ++i) {
      const LayerRule& layer = rules_.layers[i];
      const std::string at = fmt::format("blk.{}.", i);
      const bool packed = !layer.q.weight.empty() && !layer.k.weight.empty() &&
                          layer.q.weight.rows[0].tensor == layer.k.weight.rows[0].tensor;
      if (packed) hints.push_back({at + "attn_qkv.weight", DType::kF16, {1, 1}});
      if (layer.experts.empty()) continue;
      hints.push_back({at + "ffn_gate_inp.weight", DType::kF16, {spec.layers[i].ffn.moe.n_experts, 1}});
      for (const char* part : {"gate", "up", "down"}) {
        hints.push_back({fmt::format("{}ffn_{}_exps.weight", at, part), DType::kF16, {1, 1, 1}});
      }
    }
    return hints;
  }

  /// Shapes of the output's tensors, from the rows that both sides' rules name.
  Status FindShapes(const WeightRules& target) {
    struct Extent {
      int64_t rows = 0;
      int64_t columns = 0;
      int64_t slices = 0;
      bool vector = false;
    };
    std::map<std::string, Extent> extents;
    std::vector<std::string> order;
    for (const WeightPair& pair : Pairs(files_.spec, rules_, target)) {
      const auto runs = Resolve(*pair.source, *files_.source);
      if (!runs || runs->empty()) continue;
      int64_t rows = 0;
      for (const struct Run& run : *runs) rows += run.count;
      for (const RowRule& rule : pair.target->rows) {
        const auto [at, added] = extents.try_emplace(rule.tensor);
        if (added) order.push_back(rule.tensor);
        Extent& extent = at->second;
        const int64_t count = rule.count >= 0 ? rule.count : rows;
        extent.rows = std::max(extent.rows, rule.first + (count - 1) * rule.step + 1);
        extent.columns = ColumnsOf(runs->front());
        extent.slices = std::max(extent.slices, rule.slice + 1);
        extent.vector = runs->front().tensor->shape.size() <= 1;
      }
    }
    out_.tensors.clear();
    for (const std::string& name : order) {
      const Extent& extent = extents[name];
      SourceTensor tensor{.name = name, .shape = {extent.rows, extent.columns}};
      if (extent.vector) tensor.shape = {extent.rows};
      if (extent.slices > 0) tensor.shape.insert(tensor.shape.begin(), extent.slices);
      tensor.by_value = extent.vector;
      out_.tensors.push_back(std::move(tensor));
    }
    return OkStatus();
  }

  std::vector<GgufTensor> Described() const {
    std::vector<GgufTensor> described = out_.extra;
    for (const SourceTensor& tensor : out_.tensors) described.push_back({tensor.name, DType::kF32, tensor.shape});
    return described;
  }

  Result<std::unique_ptr<GgufDraft>> Draft(const std::vector<GgufTensor>& tensors,
                                           const std::vector<std::string>& contents) const {
    return GgufDraft::Make(out_.entries, tensors, contents, files_.path.string() + " as GGUF");
  }

  Status PlaceTensors() {
    ASSIGN_OR_RETURN(const auto hints, Draft(Hints(), {}));
    ASSIGN_OR_RETURN(const WeightRules names, reader_.rules_gguf(files_.spec, hints->file()));
    RETURN_IF_ERROR(FindShapes(names));
    // Rows are permuted only where the reader finds a tensor of the right shape.
    ASSIGN_OR_RETURN(draft_, Draft(Described(), out_.extra_bytes));
    ASSIGN_OR_RETURN(const WeightRules target, reader_.rules_gguf(files_.spec, draft_->file()));
    std::map<std::string_view, SourceTensor*> by_name;
    for (SourceTensor& tensor : out_.tensors) by_name[tensor.name] = &tensor;
    for (const WeightPair& pair : Pairs(files_.spec, rules_, target)) {
      const auto runs = Resolve(*pair.source, *files_.source);
      if (runs && !runs->empty()) RETURN_IF_ERROR(Connect(*runs, *pair.target, pair.norm, by_name));
    }
    return OkStatus();
  }

  /// Row by row, the same weight's rows on both sides.
  Status Connect(const std::vector<struct Run>& runs, const WeightRule& target, bool norm,
                 const std::map<std::string_view, SourceTensor*>& by_name) {
    size_t r = 0;
    int64_t used = 0;  // rows of runs[r]
    for (const RowRule& rule : target.rows) {
      const auto found = by_name.find(rule.tensor);
      if (found == by_name.end()) return Internal("tensor \"{}\" has no shape", rule.tensor);
      SourceTensor& tensor = *found->second;
      const int64_t rows = tensor.by_value ? tensor.shape[0] : tensor.shape[tensor.shape.size() - 2];
      int64_t left = rule.count >= 0 ? rule.count : rows - rule.first;
      int64_t at = rule.first + std::max<int64_t>(rule.slice, 0) * rows;
      while (left > 0) {
        while (r < runs.size() && used == runs[r].count) {
          ++r;
          used = 0;
        }
        if (r == runs.size()) return Internal("tensor \"{}\": GGUF has more rows than the checkpoint", rule.tensor);
        const struct Run& run = runs[r];
        const RowRule& from = *run.rule;
        const int64_t count = std::min(left, run.count - used);
        const std::vector<int64_t>& shape = run.tensor->shape;
        const int64_t slice = from.slice > 0 && shape.size() == 3 ? from.slice * shape[1] * shape[2] : 0;
        if (tensor.pieces.empty()) tensor.dtype = run.tensor->dtype;
        tensor.pieces.push_back({.target = at,
                                 .target_step = rule.step,
                                 .count = count,
                                 .tensor = run.tensor,
                                 .first = from.first + used * from.step,
                                 .step = from.step,
                                 .transposed = from.transposed,
                                 .slice_offset = slice});
        at += count * rule.step;
        left -= count;
        used += count;
      }
      const bool bakes_one = norm && files_.spec.final_norm && files_.spec.final_norm->plus_one;
      tensor.addend = bakes_one ? 1.0f : 0.0f;
    }
    return OkStatus();
  }

  static void StripNorm(std::optional<NormSpec>& norm) {
    if (norm) norm->plus_one = false;
  }

  /// The file must say all that the checkpoint says.
  Status ReadBack(bool pre_chosen) {
    auto read = reader_.parse_gguf(draft_->file());
    if (!read.ok()) return read.status().WithContext("what would be written cannot be read back");
    expected_.family = read->family;
    expected_.architecture = read->architecture;
    expected_.dtype = read->dtype;
    expected_.bos_id = read->bos_id;
    expected_.eos_ids = read->eos_ids;
    expected_.pad_id = read->pad_id;
    StripNorm(expected_.final_norm);
    for (LayerSpec& layer : expected_.layers) {
      for (const auto norm : {&LayerSpec::attn_norm, &LayerSpec::attn_branch_norm, &LayerSpec::attn_residual_norm,
                              &LayerSpec::ffn_norm, &LayerSpec::ffn_branch_norm, &LayerSpec::ffn_residual_norm}) {
        StripNorm(layer.*norm);
      }
    }
    RoundRope(&expected_);
    RoundRope(&*read);
    const json::object a = SpecJson(expected_);
    const json::object b = SpecJson(*read);
    for (const auto& [key, value] : a) {
      if (b.at(key) == value) continue;
      return Unsupported("{}: GGUF's {} cannot say this model's \"{}\": it is {}, read back it would be {}",
                         files_.path.string(), arch_, std::string_view(key), Short(value), Short(b.at(key)));
    }
    return CompareTokenizers(files_.folder, draft_->file(), pre_chosen);
  }

  /// GGUF has these in fp32.
  static void RoundRope(DecoderSpec* spec) {
    auto* const rope = std::get_if<RopePosition>(&spec->position);
    if (rope == nullptr) return;
    const auto round = [](double& x) { x = static_cast<double>(static_cast<float>(x)); };
    round(rope->theta);
    round(rope->scaling.factor);
    if (rope->scaling.attention_factor) round(*rope->scaling.attention_factor);
    for (auto* list : {&rope->scaling.frequency_divisors, &rope->scaling.short_factor, &rope->scaling.long_factor}) {
      for (double& x : *list) round(x);
    }
  }

  static std::string Short(const json::value& value) {
    std::string text = json::serialize(value);
    if (text.size() > 300) text.replace(300, std::string::npos, "…");
    return text;
  }

  ModelFiles files_;
  const ModelFamily& family_;
  const ModelFamily& reader_;
  std::string arch_;
  WeightRules rules_;
  DecoderSpec expected_;  // what the written file must be read as
  std::unique_ptr<GgufDraft> draft_;
  QuantizeSource out_;
};

}  // namespace

Result<QuantizeSource> CheckpointAsGguf(ModelFiles files, const std::string& pre) {
  const ModelFamily* family = FindFamily([&](const ModelFamily& f) { return f.name == files.spec.family; });
  if (family == nullptr || family->gguf_written_as.empty()) {
    std::string known;
    for (const ModelFamily& f : ModelFamilies()) {
      if (!f.gguf_written_as.empty()) known += (known.empty() ? "" : ", ") + std::string(f.name);
    }
    return Unsupported("{}: models of family \"{}\" cannot be written as GGUF yet; those of {} can",
                       files.path.string(), files.spec.family, known);
  }
  const ModelFamily* reader = FindFamily([&](const ModelFamily& f) {
    return std::ranges::find(f.gguf_architectures, family->gguf_written_as) != f.gguf_architectures.end();
  });
  KVASIR_CHECK(reader != nullptr);
  return Exporter(std::move(files), *family, *reader).Run(pre);
}

}  // namespace kvasir::apps
