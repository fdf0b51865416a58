// One layer's attention on made-up data, for measuring.
#pragma once

#include <cstdint>
#include <memory>

#include "base/buffer.h"
#include "base/status.h"
#include "kernels/ops.h"
#include "kv/cache.h"

namespace kvasir::apps {

struct LayerShape {
  KvType type = KvType::kBF16;
  int32_t n_heads = 1;
  int32_t kv_heads = 1;
  int32_t head_dim = 128;
};

/// Queries, and keys and values in a growing cache of src/kv. Values are even between -1 and 1; keys and values repeat
/// after kPeriod tokens. Owns its memory; only one sequence of queries may run at a time.
class AttentionLayer {
 public:
  static constexpr int64_t kPeriod = 1024;

  /// `tokens` in the cache, `queries` rows of queries. Uses ctx's threads.
  static Result<AttentionLayer> Make(ExecContext& ctx, const LayerShape& shape, int64_t tokens, int64_t queries);

  /// Causal attention of a prompt of `tokens` tokens to itself. REQUIRES: as many queries and cached tokens.
  AttentionArgs Prompt(int64_t tokens) const;
  /// One query at the end of the cached tokens [begin, begin + tokens). REQUIRES: begin is a multiple of the cache's
  /// blocks.
  AttentionArgs Decode(int64_t begin, int64_t tokens) const;

  const LayerShape& shape() const { return shape_; }
  float scale() const;
  MatView<const float> queries() const { return {queries_.as<float>(), rows_, width()}; }
  MatView<float> out() const { return {out_->as<float>(), rows_, width()}; }
  /// Of the first kPeriod tokens, before rounding: [kPeriod, kv_heads · head_dim].
  MatView<const float> keys() const { return {keys_.as<float>(), kPeriod, kv_width()}; }
  MatView<const float> values() const { return {values_.as<float>(), kPeriod, kv_width()}; }
  /// The cache's own account.
  int64_t cache_bytes() const { return cache_->BytesInUse(); }

 private:
  AttentionLayer() = default;
  int64_t width() const { return int64_t{shape_.n_heads} * shape_.head_dim; }
  int64_t kv_width() const { return int64_t{shape_.kv_heads} * shape_.head_dim; }
  AttentionArgs Args(int64_t rows) const;

  LayerShape shape_;
  int64_t rows_ = 0;
  std::unique_ptr<KvCache> cache_;
  SeqId seq_ = 0;
  Buffer queries_, keys_, values_;
  std::unique_ptr<Buffer> out_;
};

}  // namespace kvasir::apps
