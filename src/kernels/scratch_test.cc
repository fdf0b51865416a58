// The scratch memory that operations say they take is what they take.
#include <gtest/gtest.h>

#include "kernels/attention_kernels.h"
#include "kernels/attention_test_util.h"
#include "kernels/quant_pack.h"
#include "kernels/testing.h"

namespace kvasir {
namespace {

/// Bytes of the arena that `run` took at most; the arena is empty before.
template <typename Fn>
int64_t TakenBy(Arena& arena, const Fn& run) {
  arena.Reset();
  ResetMemoryPeaks();
  const int64_t before = GetMemoryUse(MemoryOwner::kActivations).current;
  run();
  return GetMemoryUse(MemoryOwner::kActivations).peak - before;
}

TEST(Scratch, MatMulTakesExactlyWhatItSays) {
  for (const KernelSet* set : AvailableKernelSets()) {
    for (int threads : {1, 3}) {
      testing::TestContext test(set, threads);
      for (int f = 0; f < kWeightFormats; ++f) {
        for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{96, 40}, {128, 520}}) {
          PackedWeight w{.format = static_cast<WeightFormat>(f), .rows = rows, .cols = cols};
          auto data = Buffer::Allocate(w.bytes(), MemoryOwner::kOther);  // zeros are weights of every format
          ASSERT_TRUE(data.ok());
          w.data = data->data();
          for (int64_t tokens : {1, 7, 16, 130}) {
            // The larger shape is rounded only where there are kernels for that.
            const int modes = rows == 96 || set->matmul->formats[f]->rounded != nullptr ? 4 : 2;
            for (int mode = 0; mode < modes; ++mode) {
              const bool gated = mode % 2 != 0;
              test.ctx.round_weights = mode / 2 != 0;
              const std::vector<float> x(static_cast<size_t>(tokens * cols), 0.5f);
              const int64_t outputs = gated ? rows / 2 : rows;
              std::vector<float> y(static_cast<size_t>(tokens * outputs));
              const int64_t taken = TakenBy(test.arena, [&] {
                EXPECT_TRUE(
                    MatMul(test.ctx, {x.data(), tokens, cols}, w, {.gated = gated}, {y.data(), tokens, outputs}).ok());
              });
              EXPECT_EQ(taken, MatMulScratchBytes(*set, threads, tokens, w, gated, test.ctx.round_weights))
                  << set->name << " format " << f << ", " << tokens << " tokens";
            }
          }
        }
      }
    }
  }
}

TEST(Scratch, AttentionTakesNoMoreThanItSays) {
  for (const auto& [stride, local] : {std::pair<int64_t, int64_t>{0, 0}, {2, 0}, {64, 64}, {1000, 3}}) {
    for (int threads : {1, 3}) {
      for (int32_t group : {1, 4, 49}) {
        testing::TestContext test(AvailableKernelSets().front(), threads);
        constexpr int64_t kLength = 700;
        testing::Sequence sequence(
            {.type = KvType::kBF16, .length = kLength, .kv_heads = 2, .group = group, .stride = stride, .local = local},
            *test.ctx.kernels, 1);
        AttentionShape shape{.threads = threads,
                             .type = KvType::kBF16,
                             .n_heads = 2 * group,
                             .kv_heads = 2,
                             .head_dim = 16,
                             .slots = kLength,
                             .stride = stride,
                             .local = local};
        int64_t most = 0;  // for so many tokens and fewer
        for (int64_t tokens : {1, 2, 30, 100, 700}) {
          shape.tokens = tokens;
          shape.sequences = 1;
          const AttentionArgs args = sequence.Args(kLength - tokens, kLength, kLength);
          const int64_t taken = TakenBy(test.arena, [&] { EXPECT_TRUE(Attention(test.ctx, {&args, 1}).ok()); });
          most = std::max(most, taken);
          EXPECT_LE(most, AttentionScratchBytes(shape)) << stride << " " << local << ", " << tokens << " tokens";
          if (stride > 0 && local == 0) {
            EXPECT_GE(most + 4096, AttentionScratchBytes(shape))
                << stride << " " << local << ", " << tokens << " tokens";
          }
        }
        const AttentionArgs batch[] = {sequence.Args(0, 40, kLength), sequence.Args(40, 41, 41),
                                       sequence.Args(41, 300, kLength)};
        shape.tokens = 300;
        shape.sequences = 3;
        EXPECT_LE(TakenBy(test.arena, [&] { EXPECT_TRUE(Attention(test.ctx, batch).ok()); }),
                  AttentionScratchBytes(shape));
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
