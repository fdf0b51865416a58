// The scratch memory that operations say they take is what they take.
#include <gtest/gtest.h>

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
        for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{96, 40}, {160, 520}}) {
          PackedWeight w{.format = static_cast<WeightFormat>(f), .rows = rows, .cols = cols};
          auto data = Buffer::Allocate(w.bytes(), MemoryOwner::kOther);  // zeros are weights of every format
          ASSERT_TRUE(data.ok());
          w.data = data->data();
          for (int64_t tokens : {1, 7, 16, 130}) {
            for (int mode = 0; mode < 4; ++mode) {
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

}  // namespace
}  // namespace kvasir
