// A small cache, sequences in it, and a double-precision definition of attention, for the tests of attention.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/checked.h"
#include "kernels/kernel_set.h"
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
        if (own - position < args.min_distance) continue;
        if (args.stride > 1 && own - position > args.local && (own - position) % args.stride != 0) continue;
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

/// One sequence: `length` slots of which the last `tokens` are queried.
struct Case {
  KvType type = KvType::kF32;
  int64_t length = 1;
  int64_t tokens = 1;
  int32_t kv_heads = 1;
  int32_t group = 1;
  int32_t head_dim = 16;
  int64_t window = 0;
  float softcap = 0.0f;
  bool alibi = false;
  bool alibi_bf16 = false;
  int64_t first_valid = 0;
  float scale = 0.0f;  // 0: 1/sqrt(head_dim)
  int64_t stride = 0;
  int64_t local = 0;
  int64_t min_distance = 0;
};

/// A Case with its data.
class Sequence {
 public:
  Sequence(const Case& c, const KernelSet& set, uint32_t seed)
      : case_(c),
        cache_(c.type, c.kv_heads, c.head_dim, 3, c.length),
        q_(c.length, width(), width() + 3, 1),
        k_(c.length, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim + 1, 1),
        v_(c.length, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim + 1, 3),
        out_(c.length, width(), width() + 5, 3) {
    std::mt19937 rng(seed);
    q_.Fill(rng, 1.5f);
    k_.Fill(rng, 1.0f);
    v_.Fill(rng, 1.0f);
    for (int h = 0; h < c.kv_heads * c.group; ++h) slopes_.push_back(std::exp2(-0.7f * static_cast<float>(h + 1)));
    ThreadPool pool(1);
    Arena arena;
    ExecContext ctx{&pool, &arena, &set, {}};
    const KvWrite write{k_.view(), v_.view(), cache_.View(c.length), 0};
    WriteKv(ctx, {&write, 1});
  }

  int64_t width() const { return int64_t{case_.kv_heads} * case_.group * case_.head_dim; }

  /// Queries for the tokens [begin, end), over a cache that has `length` slots.
  AttentionArgs Args(int64_t begin, int64_t end, int64_t length) {
    AttentionArgs args;
    args.q = MatView<const float>(q_.view()).Rows(begin, end - begin);
    args.out = out_.view().Rows(begin, end - begin);
    args.kv = cache_.View(length);
    args.kv.first_valid = case_.first_valid;
    if (!positions_.empty()) args.kv.positions = positions_.data();
    args.first_slot = begin;
    args.n_heads = case_.kv_heads * case_.group;
    args.scale = case_.scale != 0.0f ? case_.scale : 1.0f / std::sqrt(static_cast<float>(case_.head_dim));
    args.softcap = case_.softcap;
    args.window = case_.window;
    args.stride = case_.stride;
    args.local = case_.local;
    args.min_distance = case_.min_distance;
    if (case_.alibi) args.alibi_slopes = slopes_.data();
    args.alibi_bf16 = case_.alibi_bf16;
    args.alibi_scale = case_.alibi ? 0.75f : 1.0f;
    return args;
  }
  AttentionArgs Args() { return Args(case_.length - case_.tokens, case_.length, case_.length); }
  void SetPositions(std::vector<int32_t> positions) { positions_ = std::move(positions); }

  std::vector<uint32_t> Bits(int64_t begin, int64_t end) {
    std::vector<uint32_t> bits;
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < width(); ++c) bits.push_back(std::bit_cast<uint32_t>(out_.view().row(r)[c]));
    }
    return bits;
  }
  MatView<float> out() { return out_.view(); }
  MatView<float> q() { return q_.view(); }
  MatView<float> k() { return k_.view(); }
  MatView<float> v() { return v_.view(); }
  const TestCache& cache() const { return cache_; }

 private:
  Case case_;
  TestCache cache_;
  Floats q_, k_, v_, out_;
  std::vector<float> slopes_;
  std::vector<int32_t> positions_;
};

inline std::string Describe(const Case& c) {
  return fmt::format(
      "type {} length {} tokens {} kv_heads {} group {} head_dim {} window {} softcap {} alibi {}/{} first {} stride "
      "{} "
      "local {} least {}",
      static_cast<int>(c.type), c.length, c.tokens, c.kv_heads, c.group, c.head_dim, c.window, c.softcap, c.alibi,
      c.alibi_bf16, c.first_valid, c.stride, c.local, c.min_distance);
}

inline constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4};

/// On one kernel set.
class AttentionTestBase : public ::testing::TestWithParam<const KernelSet*> {
 protected:
  Status Run(int threads, std::span<const AttentionArgs> args) {
    if (!pool_ || pool_->size() != threads) pool_ = std::make_unique<ThreadPool>(threads);
    ExecContext ctx{pool_.get(), &arena_, GetParam(), {}};
    const Status status = Attention(ctx, args);
    EXPECT_EQ(arena_.GetMark().chunk, 0u);
    EXPECT_EQ(arena_.GetMark().used, 0);
    return status;
  }

  static void ExpectDefinition(const AttentionArgs& args, const std::string& what) {
    const std::vector<double> expected = DefineAttention(args);
    // bf16 rounds the weights of a convex combination of values around 1, codes round queries and weights to 16-bit
    // integers; the rest is fp32.
    const double tolerance = args.kv.type == KvType::kBF16 ? 6e-3 : HasCodes(args.kv.type) ? 1.5e-3 : 1e-5;
    double worst = 0;
    for (int64_t r = 0; r < args.out.rows; ++r) {
      for (int64_t c = 0; c < args.out.cols; ++c) {
        const double difference =
            std::abs(double{args.out.row(r)[c]} - expected[static_cast<size_t>(r * args.out.cols + c)]);
        worst = std::max(worst, std::isnan(difference) ? INFINITY : difference);
      }
    }
    EXPECT_LE(worst, tolerance) << what;
  }

  /// Attention of the case is what the definition says.
  void Check(const Case& c, int threads = 1) {
    Sequence sequence(c, *GetParam(), 1);
    const AttentionArgs args = sequence.Args();
    ASSERT_TRUE(Run(threads, {&args, 1}).ok());
    ExpectDefinition(args, Describe(c));
  }

  bool slow() const { return std::string_view(GetParam()->name) == "ref"; }

  std::unique_ptr<ThreadPool> pool_;
  Arena arena_;
};

}  // namespace kvasir::testing
