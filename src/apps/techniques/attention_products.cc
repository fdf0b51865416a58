#include "apps/techniques/attention_products.h"

#include <algorithm>
#include <cmath>

#include "apps/techniques/technique.h"
#include "base/checked.h"

namespace kvasir::apps {
namespace {

constexpr int64_t kQueryRows = 256;                      // of a block of scores
constexpr int64_t kValueRows = AttentionLayer::kPeriod;  // tokens of a block of values

Result<Buffer> Pack(std::span<const PackSource> rows, int64_t cols, WeightFormat format, PackedWeight* w) {
  *w = {.format = format, .rows = static_cast<int64_t>(rows.size()), .cols = cols};
  ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(w->bytes(), MemoryOwner::kOther));
  PackPanel(rows, cols, format, buffer.data());
  w->data = buffer.data();
  return buffer;
}

const std::byte* Bytes(const float* values) { return reinterpret_cast<const std::byte*>(values); }

}  // namespace

Result<AttentionByProducts> AttentionByProducts::Make(const AttentionLayer& layer, int64_t tokens) {
  AttentionByProducts attention(layer, tokens);
  const LayerShape& shape = layer.shape();
  KVASIR_CHECK(shape.n_heads == shape.kv_heads && (shape.type == KvType::kBF16 || shape.type == KvType::kF32));
  const WeightFormat format = shape.type == KvType::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32;
  const MatView<const float> k = layer.keys();
  const MatView<const float> v = layer.values();
  for (int64_t head = 0; head < shape.n_heads; ++head) {
    const int64_t column = head * shape.head_dim;
    std::vector<PackSource> rows;
    rows.reserve(static_cast<size_t>(std::max<int64_t>(tokens, shape.head_dim)));
    for (int64_t t = 0; t < tokens; ++t) {
      rows.push_back({.data = Bytes(k.row(t % AttentionLayer::kPeriod) + column)});
    }
    PackedWeight keys;
    ASSIGN_OR_RETURN(Buffer key_memory, Pack(rows, shape.head_dim, format, &keys));
    attention.memory_.push_back(std::move(key_memory));
    attention.keys_.push_back(keys);

    rows.clear();
    for (int64_t i = 0; i < shape.head_dim; ++i) {
      rows.push_back({.data = Bytes(v.data + column + i), .element_stride = v.stride});
    }
    attention.values_.emplace_back();
    for (int64_t t = 0; t < tokens; t += kValueRows) {
      PackedWeight values;
      ASSIGN_OR_RETURN(Buffer memory, Pack(rows, std::min(kValueRows, tokens - t), format, &values));
      attention.memory_.push_back(std::move(memory));
      attention.values_.back().push_back(values);
    }
  }
  return attention;
}

Status AttentionByProducts::Run(ExecContext& ctx, double* softmax_seconds) const {
  const Arena::Mark mark = ctx.scratch->GetMark();
  Status status;
  for (int64_t head = 0; head < layer_->shape().n_heads && status.ok(); ++head)
    status = RunHead(ctx, head, softmax_seconds);
  ctx.scratch->Rewind(mark);
  return status;
}

Status AttentionByProducts::RunHead(ExecContext& ctx, int64_t head, double* softmax_seconds) const {
  const int64_t d = layer_->shape().head_dim;
  const Arena::Mark mark = ctx.scratch->GetMark();
  ASSIGN_OR_RETURN(float* memory, ctx.scratch->Allocate<float>(tokens_ * tokens_));
  const MatView<float> scores(memory, tokens_, tokens_);
  const MatView<const float> queries = layer_->queries().Cols(head * d, d);
  const MatView<float> out = layer_->out().Cols(head * d, d);
  for (int64_t row = 0; row < tokens_; row += kQueryRows) {
    const int64_t count = std::min(kQueryRows, tokens_ - row);
    PackedWeight seen = keys_[static_cast<size_t>(head)];
    seen.rows = row + count;
    RETURN_IF_ERROR(MatMul(ctx, queries.Rows(row, count), seen, {.scale = layer_->scale()},
                           scores.Rows(row, count).Cols(0, seen.rows)));
  }
  ASSIGN_OR_RETURN(const double softmax, TimeOf([&] {
                     Softmax(ctx, scores);
                     return OkStatus();
                   }));
  *softmax_seconds += softmax;
  for (int64_t row = 0; row < tokens_; row += kQueryRows) {
    const int64_t count = std::min(kQueryRows, tokens_ - row);
    int64_t at = 0;
    for (const PackedWeight& values : values_[static_cast<size_t>(head)]) {
      if (at >= row + count) break;
      RETURN_IF_ERROR(MatMul(ctx, scores.Rows(row, count).Cols(at, values.cols), values, {.accumulate = at > 0},
                             out.Rows(row, count)));
      at += values.cols;
    }
  }
  ctx.scratch->Rewind(mark);
  return OkStatus();
}

void AttentionByProducts::Softmax(ExecContext& ctx, MatView<float> scores) const {
  ctx.pool->ParallelFor(tokens_, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = scores.row(t);
      const float max = *std::max_element(row, row + t + 1);
      float sum = 0.0f;
      for (int64_t j = 0; j <= t; ++j) sum += row[j] = std::exp(row[j] - max);
      for (int64_t j = 0; j <= t; ++j) row[j] /= sum;
      // What the row does not see counts as nothing in the blocks of values that it shares with rows that do.
      std::fill(row + t + 1, row + std::min(RoundUp(t + 1, kValueRows), tokens_), 0.0f);
    }
  });
}

}  // namespace kvasir::apps
