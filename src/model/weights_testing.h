// A model in memory for tests of planning and packing weights.
#pragma once

#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/weights.h"

namespace kvasir::weights_testing {

/// fp32 tensors in memory; element i of each is base + i.
class FakeSource final : public TensorSource {
 public:
  void Add(const std::string& name, std::vector<int64_t> shape, float base, DType dtype = DType::kF32) {
    int64_t n = 1;
    for (int64_t dim : shape) n *= dim;
    std::vector<float>& data = data_.emplace_back(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) data[static_cast<size_t>(i)] = base + static_cast<float>(i);
    tensors_.push_back({.name = name,
                        .dtype = dtype,
                        .shape = std::move(shape),
                        .data = reinterpret_cast<const std::byte*>(data.data()),
                        .bytes = n * 4});
  }
  float& At(const std::string& name, size_t i) {
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (tensors_[t].name == name) return data_[t][i];
    }
    std::abort();
  }
  /// A matrix whose rows are made by `rows`.
  void AddMade(const std::string& name, std::vector<int64_t> shape, DType dtype,
               std::shared_ptr<const RowEncoder> rows) {
    const int64_t bytes = *DTypeBytes(dtype, shape[0] * shape[1]);
    tensors_.push_back(
        {.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = bytes, .rows = std::move(rows)});
    data_.emplace_back();
  }
  void Remove(const std::string& name) {
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (tensors_[t].name != name) continue;
      tensors_.erase(tensors_.begin() + static_cast<std::ptrdiff_t>(t));
      data_.erase(data_.begin() + static_cast<std::ptrdiff_t>(t));
      return;
    }
  }
  const RawTensor* Find(std::string_view name) const override {
    for (const RawTensor& tensor : tensors_) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }
  std::span<const RawTensor> tensors() const override { return tensors_; }
  const std::string& description() const override { return description_; }

 private:
  std::vector<RawTensor> tensors_;
  std::deque<std::vector<float>> data_;
  std::string description_ = "fake";
};

/// A one-layer model of width 6, 2 heads of 3, a gated FFN of 20.
struct Fixture {
  DecoderSpec spec;
  WeightRules rules;
  FakeSource source;

  Fixture() {
    spec.family = "test";
    spec.vocab_size = 5;
    spec.width = spec.embedding_width = 6;
    spec.head.tied = true;
    LayerSpec layer;
    layer.attention = {.n_heads = 2, .n_kv_heads = 1, .head_dim = 3, .qkv_bias = true, .scale = 1.0f};
    layer.ffn = {.width = 20, .up_bias = true};
    spec.layers = {layer};

    rules.embedding = WeightRule("embedding");
    source.Add("embedding", {5, 6}, 0.0f);
    LayerRule rule;
    rule.q.weight.rows = {{.tensor = "packed", .first = 0, .count = 3, .step = 2},
                          {.tensor = "packed", .first = 1, .count = 3, .step = 2}};
    rule.k.weight.rows = {{.tensor = "packed", .first = 6, .count = 3}};
    rule.v.weight = WeightRule("v", true);
    source.Add("packed", {9, 6}, 100.0f);
    source.Add("v", {6, 3}, 200.0f);
    rule.q.bias = WeightRule("q_bias");
    rule.k.bias = WeightRule("k_bias");
    rule.v.bias = WeightRule("v_bias");
    source.Add("q_bias", {6}, 10.0f);
    source.Add("k_bias", {3}, 20.0f);
    source.Add("v_bias", {3}, 30.0f);
    rule.out.weight.rows = {{.tensor = "stacked", .slice = 1}};
    source.Add("stacked", {2, 6, 6}, 300.0f);
    for (const char* part : {"gate", "up", "down"}) {
      const bool down = std::string_view(part) == "down";
      source.Add(part, down ? std::vector<int64_t>{6, 20} : std::vector<int64_t>{20, 6}, 400.0f);
    }
    source.Add("gate_bias", {20}, 40.0f);
    source.Add("up_bias", {20}, 70.0f);
    rule.ffn.gate = {WeightRule("gate"), WeightRule("gate_bias")};
    rule.ffn.up = {WeightRule("up"), WeightRule("up_bias")};
    rule.ffn.down = {WeightRule("down"), {}};
    rules.layers = {rule};
  }

  Result<WeightPlan> Plan(ModelWeights& weights, std::optional<DType> dtype = {},
                          std::optional<DType> quantized = {}) const {
    return PlanWeights(spec, rules, source, dtype, weights, quantized);
  }
};

inline std::vector<float> RowOf(const PackedWeight& weight, int64_t row) {
  std::vector<float> values(static_cast<size_t>(weight.cols));
  UnpackRow(weight, row, values.data());
  return values;
}

}  // namespace kvasir::weights_testing
