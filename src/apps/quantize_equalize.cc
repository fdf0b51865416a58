#include "apps/quantize_equalize.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "model/input_scales.h"

namespace kvasir::apps {
namespace {

class Equalizer {
 public:
  Equalizer(QuantizeSource& source, ThreadPool& pool) : spec_(source.files.spec), pool_(pool) {
    for (SourceTensor& tensor : source.tensors) by_name_[tensor.name] = &tensor;
  }

  Result<int64_t> Run() {
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      const LayerSpec& layer = spec_.layers[i];
      prefix_ = fmt::format("blk.{}.", i);
      const bool in_turn = !layer.parallel && layer.attn_norm && layer.ffn_norm;
      const bool dense = layer.ffn.moe.n_experts == 0;
      const AttentionSpec& attention = layer.attention;
      if (in_turn) RETURN_IF_ERROR(BehindNorm("attn_norm", {"attn_q", "attn_k", "attn_v"}));
      if (attention.qkv_clip == 0.0f) RETURN_IF_ERROR(BehindValues(attention));
      if (in_turn && dense && layer.ffn.gated) RETURN_IF_ERROR(BehindNorm("ffn_norm", {"ffn_gate", "ffn_up"}));
      if (in_turn && dense && !layer.ffn.gated) RETURN_IF_ERROR(BehindNorm("ffn_norm", {"ffn_up"}));
      // Linear in up's part only beside a gate.
      if (dense && layer.ffn.gated && Find("ffn_gate") != nullptr) RETURN_IF_ERROR(BehindUp(layer.ffn));
    }
    return scaled_;
  }

 private:
  SourceTensor* Find(const std::string& name, const char* ending = ".weight") const {
    const auto at = by_name_.find(prefix_ + name + ending);
    return at == by_name_.end() ? nullptr : at->second;
  }

  /// AddColumnSizes of all rows of a matrix.
  Result<std::vector<float>> Measure(const SourceTensor& tensor) const {
    ASSIGN_OR_RETURN(const RowReader reader, RowReader::Make(tensor));
    constexpr int64_t kStripe = 256;  // rows
    const auto columns = static_cast<size_t>(ColumnCount(tensor));
    const int64_t rows = RowCount(tensor);
    std::vector<float> sizes(columns, 0.0f);
    std::mutex mutex;
    pool_.ParallelFor((rows + kStripe - 1) / kStripe, 1, [&](int64_t begin, int64_t end, int) {
      std::vector<float> own(columns, 0.0f);
      std::vector<float> row(columns);
      const int64_t last = std::min(end * kStripe, rows);
      for (int64_t r = begin * kStripe; r < last; ++r) {
        reader.Read(r, row.data());
        AddColumnSizes(row, own);
      }
      reader.GiveBack(begin * kStripe, last);
      const std::lock_guard<std::mutex> lock(mutex);
      for (size_t k = 0; k < columns; ++k) sizes[k] = std::max(sizes[k], own[k]);
    });
    return sizes;
  }

  /// Whether any input is to be scaled; counts them.
  bool Scales(std::vector<float>* sizes) {
    InputScalesOf(*sizes);
    const int64_t count = std::ranges::count_if(*sizes, [](float scale) { return scale != 1.0f; });
    scaled_ += count;
    return count > 0;
  }

  static void DivideColumns(SourceTensor& tensor, const std::vector<float>& scales) {
    tensor.column_factors.resize(scales.size());
    for (size_t k = 0; k < scales.size(); ++k) tensor.column_factors[k] = 1.0f / scales[k];
  }

  /// The values of a vector, if there is such a tensor.
  static void MultiplyValues(SourceTensor* tensor, const std::vector<float>& scales) {
    if (tensor != nullptr) tensor->column_factors = scales;
  }

  Status BehindNorm(const std::string& norm, std::initializer_list<const char*> names) {
    SourceTensor* const weight = Find(norm);
    if (weight == nullptr || RowCount(*weight) != 1) return OkStatus();
    std::vector<SourceTensor*> matrices;
    std::vector<float> sizes(static_cast<size_t>(ColumnCount(*weight)), 0.0f);
    for (const char* name : names) {
      SourceTensor* const matrix = Find(name);
      if (matrix == nullptr || static_cast<size_t>(ColumnCount(*matrix)) != sizes.size()) return OkStatus();
      ASSIGN_OR_RETURN(const std::vector<float> own, Measure(*matrix));
      for (size_t k = 0; k < own.size(); ++k) sizes[k] = std::max(sizes[k], own[k]);
      matrices.push_back(matrix);
    }
    if (!Scales(&sizes)) return OkStatus();
    for (SourceTensor* const matrix : matrices) DivideColumns(*matrix, sizes);
    MultiplyValues(weight, sizes);
    MultiplyValues(Find(norm, ".bias"), sizes);
    return OkStatus();
  }

  /// v's rows of one KV head are inputs of the output matrix for every head of its group.
  Status BehindValues(const AttentionSpec& attention) {
    SourceTensor* const v = Find("attn_v");
    SourceTensor* const out = Find("attn_output");
    const int64_t dim = attention.head_dim;
    const int64_t group = attention.n_heads / attention.n_kv_heads;
    if (v == nullptr || out == nullptr || RowCount(*v) != attention.n_kv_heads * dim ||
        ColumnCount(*out) != attention.n_heads * dim) {
      return OkStatus();
    }
    ASSIGN_OR_RETURN(std::vector<float> sizes, Measure(*out));
    std::vector<float> scales(static_cast<size_t>(RowCount(*v)), 0.0f);
    const auto row_of = [&](size_t k) {
      const auto column = static_cast<int64_t>(k);
      return static_cast<size_t>(column / dim / group * dim + column % dim);
    };
    for (size_t k = 0; k < sizes.size(); ++k) scales[row_of(k)] = std::max(scales[row_of(k)], sizes[k]);
    if (!Scales(&scales)) return OkStatus();
    for (size_t k = 0; k < sizes.size(); ++k) sizes[k] = scales[row_of(k)];
    DivideColumns(*out, sizes);
    v->row_factors = scales;
    MultiplyValues(Find("attn_v", ".bias"), scales);
    return OkStatus();
  }

  Status BehindUp(const FfnSpec& ffn) {
    SourceTensor* const up = Find("ffn_up");
    SourceTensor* const down = Find("ffn_down");
    if (up == nullptr || down == nullptr || RowCount(*up) != ffn.width || ColumnCount(*down) != ffn.width) {
      return OkStatus();
    }
    ASSIGN_OR_RETURN(std::vector<float> scales, Measure(*down));
    if (!Scales(&scales)) return OkStatus();
    DivideColumns(*down, scales);
    up->row_factors = scales;
    MultiplyValues(Find("ffn_up", ".bias"), scales);
    return OkStatus();
  }

  const DecoderSpec& spec_;
  ThreadPool& pool_;
  std::map<std::string, SourceTensor*> by_name_;
  std::string prefix_;
  int64_t scaled_ = 0;
};

}  // namespace

Result<int64_t> EqualizeColumns(QuantizeSource& source, ThreadPool& pool) { return Equalizer(source, pool).Run(); }

}  // namespace kvasir::apps
