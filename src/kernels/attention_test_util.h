// A small cache and a double-precision definition of attention, for the tests of attention.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "base/checked.h"
#include "kernels/ops.h"
#include "kernels/ref/attention_score.h"

namespace kvasir::testing {

/// A float array that begins `offset` floats after a 64-byte boundary.
class Floats {
 public:
  Floats(int64_t rows, int64_t cols, int64_t stride, int64_t offset)
      : rows_(rows), cols_(cols), stride_(stride), memory_(static_cast<size_t>(rows * stride + offset + 32), 0.0f) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    data_ = memory_.data() + (64 - address % 64) % 64 / 4 + offset;
  }
  MatView<float> view() { return {data_, rows_, cols_, stride_}; }
  void Fill(std::mt19937& rng, float spread) {
    std::normal_distribution<float> normal(0.0f, spread);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < cols_; ++c) data_[r * stride_ + c] = normal(rng);
    }
  }

 private:
  int64_t rows_, cols_, stride_;
  std::vector<float> memory_;
  float* data_;
};

/// Tiles in blocks that lie apart, as a cache has them.
class TestCache {
 public:
  TestCache(KvType type, int32_t kv_heads, int32_t head_dim, int32_t block_tiles, int64_t slots)
      : memory_(), blocks_() {
    view_.type = type;
    view_.kv_heads = kv_heads;
    view_.head_dim = head_dim;
    view_.block_tiles = block_tiles;
    view_.tile_stride = KvTileBytes(type, head_dim);
    view_.v_offset = view_.tile_stride * block_tiles;
    view_.head_stride = 2 * view_.v_offset;
    const int64_t bytes = view_.head_stride * kv_heads;
    for (int64_t b = 0; b < CeilDiv(slots, kTileTokens * block_tiles); ++b) {
      memory_.push_back(*Buffer::Allocate(bytes, MemoryOwner::kOther));
      blocks_.push_back(memory_.back().data());
    }
    view_.blocks = blocks_.data();
  }
  KvView View(int64_t length) const {
    KvView view = view_;
    view.length = length;
    return view;
  }

 private:
  std::vector<Buffer> memory_;
  std::vector<std::byte*> blocks_;
  KvView view_;
};

/// The definition in double precision. With bf16 caches, queries are rounded as kernels must; the integers of caches
/// of codes are close enough to do without.
inline std::vector<double> DefineAttention(const AttentionArgs& args) {
  const KvView& kv = args.kv;
  const int64_t d = kv.head_dim;
  const int64_t group = args.n_heads / kv.kv_heads;
  std::vector<double> result;
  for (int64_t t = 0; t < args.q.rows; ++t) {
    for (int64_t h = 0; h < args.n_heads; ++h) {
      const float* q = args.q.row(t) + h * d;
      std::vector<int64_t> slots;
      std::vector<double> logits;
      double max = -INFINITY;
      for (int64_t slot = kv.first_valid; slot < kv.length; ++slot) {
        const int64_t own = kv.positions ? kv.positions[args.first_slot + t] : args.first_slot + t;
        const int64_t position = kv.positions ? kv.positions[slot] : slot;
        if (position < 0 || position > own || (args.window > 0 && position <= own - args.window)) continue;
        double dot = 0;
        for (int64_t i = 0; i < d; ++i) {
          const float x = kv.type == KvType::kBF16 ? ToFloat(ToBFloat16(q[i])) : q[i];
          dot += double{x} * double{ref::KeyAt(kv, h / group, slot, i)};
        }
        double logit = dot * double{args.scale};
        if (args.softcap != 0) logit = double{args.softcap} * std::tanh(logit / double{args.softcap});
        if (args.alibi_slopes && args.alibi_bf16) {
          const float slope = ToFloat(ToBFloat16(args.alibi_slopes[h]));
          logit += double{args.alibi_scale} * double{ToFloat(ToBFloat16(slope * static_cast<float>(position)))};
        } else if (args.alibi_slopes) {
          logit += double{args.alibi_scale} * double{args.alibi_slopes[h]} * static_cast<double>(position - own);
        }
        slots.push_back(slot);
        logits.push_back(logit);
        max = std::max(max, logit);
      }
      double sum = 0;
      std::vector<double> out(static_cast<size_t>(d), 0.0);
      for (size_t j = 0; j < slots.size(); ++j) {
        const double p = std::exp(logits[j] - max);
        sum += p;
        for (int64_t i = 0; i < d; ++i)
          out[static_cast<size_t>(i)] += p * double{ref::ValueAt(kv, h / group, slots[j], i)};
      }
      for (double x : out) result.push_back(slots.empty() ? 0.0 : x / sum);
    }
  }
  return result;
}

}  // namespace kvasir::testing
