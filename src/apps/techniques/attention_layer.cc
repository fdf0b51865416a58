#include "apps/techniques/attention_layer.h"

#include <algorithm>
#include <cmath>

#include "decode/random.h"

namespace kvasir::apps {
namespace {

Result<Buffer> EvenNumbers(int64_t count, uint64_t seed) {
  ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(count * static_cast<int64_t>(sizeof(float)), MemoryOwner::kOther));
  Random random(seed);
  float* values = buffer.as<float>();
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(random.Next() >> 40) * 0x1p-23f - 1.0f;
  return buffer;
}

}  // namespace

Result<AttentionLayer> AttentionLayer::Make(ExecContext& ctx, const LayerShape& shape, int64_t tokens,
                                            int64_t queries) {
  AttentionLayer layer;
  layer.shape_ = shape;
  layer.rows_ = queries;
  const KvLayerShape cached{shape.kv_heads, shape.head_dim};
  ASSIGN_OR_RETURN(layer.cache_, MakeKvCache(CacheKind::kDynamic,
                                             {.layers = {&cached, 1}, .type = shape.type, .max_tokens = tokens}));
  ASSIGN_OR_RETURN(layer.seq_, layer.cache_->Create());
  if (!layer.cache_->Reserve(layer.seq_, tokens)) {
    return ResourceExhausted("no memory for a KV cache of {} tokens in {}; free some, or leave this out by --only",
                             tokens, KvTypeName(shape.type));
  }
  ASSIGN_OR_RETURN(layer.keys_, EvenNumbers(kPeriod * layer.kv_width(), 1));
  ASSIGN_OR_RETURN(layer.values_, EvenNumbers(kPeriod * layer.kv_width(), 2));
  ASSIGN_OR_RETURN(layer.queries_, EvenNumbers(queries * layer.width(), 3));
  ASSIGN_OR_RETURN(Buffer out, Buffer::Allocate(layer.queries_.size(), MemoryOwner::kOther));
  layer.out_ = std::make_unique<Buffer>(std::move(out));
  for (int64_t at = 0; at < tokens; at += kPeriod) {
    const int64_t count = std::min(kPeriod, tokens - at);
    const KvWrite write{layer.keys().Rows(0, count), layer.values().Rows(0, count), layer.cache_->View(layer.seq_, 0),
                        at};
    WriteKv(ctx, {&write, 1});
  }
  layer.cache_->Commit(layer.seq_, tokens);
  return layer;
}

float AttentionLayer::scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

AttentionArgs AttentionLayer::Args(int64_t rows) const {
  AttentionArgs args;
  args.q = queries().Rows(0, rows);
  args.out = out().Rows(0, rows);
  args.kv = cache_->View(seq_, 0);
  args.n_heads = shape_.n_heads;
  args.scale = scale();
  return args;
}

AttentionArgs AttentionLayer::Prompt(int64_t tokens) const {
  AttentionArgs args = Args(tokens);
  args.kv.length = tokens;
  return args;
}

AttentionArgs AttentionLayer::Decode(int64_t begin, int64_t tokens) const {
  AttentionArgs args = Args(1);
  args.kv.blocks += begin / cache_->BlockSlots();
  args.kv.length = tokens;
  args.first_slot = tokens - 1;
  return args;
}

}  // namespace kvasir::apps
