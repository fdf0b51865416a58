#include "kernels/exec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kernels/ceilings.h"
#include "kernels/kernel_set.h"
#include "kernels/parallel.h"

namespace kvasir {
namespace {

/// Sets KVASIR_ISA for a scope.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* name) {
    const char* old = std::getenv("KVASIR_ISA");
    if (old != nullptr) old_ = old;
    had_ = old != nullptr;
    ::setenv("KVASIR_ISA", name, 1);
  }
  ~ForcedIsa() {
    if (had_) {
      ::setenv("KVASIR_ISA", old_.c_str(), 1);
    } else {
      ::unsetenv("KVASIR_ISA");
    }
  }

 private:
  std::string old_;
  bool had_;
};

TEST(KernelSetTest, ReferenceIsAlwaysThereAndLast) {
  ASSERT_FALSE(AvailableKernelSets().empty());
  EXPECT_EQ(KernelSetName(*AvailableKernelSets().back()), "ref");
}

TEST(KernelSetTest, EverySetIsWholeAndHasItsOwnName) {
  std::set<std::string_view> names;
  for (const KernelSet* set : AvailableKernelSets()) {
    EXPECT_TRUE(names.insert(KernelSetName(*set)).second);
    EXPECT_TRUE(set->accepts(GetCpuFeatures()));
    ASSERT_TRUE(set->matmul && set->rows && set->pack && set->probes);
    for (const FormatKernels* format : set->matmul->formats) {
      ASSERT_NE(format, nullptr);
      for (const FormatKernels* kernels : {format, format->wide, format->rounded ? format->rounded->wide : nullptr}) {
        if (kernels == nullptr) continue;
        EXPECT_LE(kernels->strip, kMaxStrip);
        EXPECT_GT(kernels->x_chunk_bytes, 0);
        for (int tokens = 1; tokens <= kernels->strip; ++tokens) EXPECT_NE(kernels->tile[0][tokens - 1], nullptr);
      }
    }
  }
}

TEST(KernelSetTest, OldProcessorsGetTheReferenceOnly) {
  const CpuFeatures none;
  const KernelSetList compiled = CompiledKernelSets();
  for (int i = 0; i < compiled.count; ++i) {
    EXPECT_EQ(compiled.sets[i]->accepts(none), std::string_view(compiled.sets[i]->name) == "ref");
  }
}

#if defined(__x86_64__)
TEST(KernelSetTest, ProcessorsWithoutBf16TakeTheirWidestSet) {
  CpuFeatures cpu{.avx2 = true, .avx512 = true, .avx512_vnni = true};
  const auto accepted = [&cpu] {
    std::set<std::string_view> names;
    const KernelSetList compiled = CompiledKernelSets();
    for (int i = 0; i < compiled.count; ++i) {
      if (compiled.sets[i]->accepts(cpu)) names.insert(compiled.sets[i]->name);
    }
    return names;
  };
  EXPECT_EQ(accepted(), (std::set<std::string_view>{"avx512", "avx2", "ref"}));
  cpu.avx512_bf16 = true;
  EXPECT_EQ(accepted(), (std::set<std::string_view>{"avx512bf16", "avx512", "avx2", "ref"}));
  cpu.avx512_vnni = false;
  EXPECT_EQ(accepted(), (std::set<std::string_view>{"avx2", "ref"}));
}
#endif

TEST(KernelSetTest, EnvironmentChooses) {
  for (const KernelSet* set : AvailableKernelSets()) {
    const ForcedIsa forced(set->name);
    const auto selected = SelectKernelSet();
    ASSERT_TRUE(selected.ok());
    EXPECT_EQ(*selected, set);
  }
  {
    const ForcedIsa forced("");
    EXPECT_EQ(*SelectKernelSet(), AvailableKernelSets().front());
  }
  const ForcedIsa forced("sse9");
  const auto selected = SelectKernelSet();
  ASSERT_FALSE(selected.ok());
  EXPECT_EQ(selected.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(selected.status().message().find("sse9"), std::string::npos);
  EXPECT_NE(selected.status().message().find("ref"), std::string::npos);
}

TEST(ParallelTest, EveryItemOnce) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 3, 7, 100, 1000}) {
      std::mutex mutex;
      std::vector<int> seen(static_cast<size_t>(count));
      ForItems(pool, count, [&](int64_t item, int worker) {
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(worker >= 0 && worker < threads);
        ++seen[static_cast<size_t>(item)];
      });
      EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; })) << threads << " " << count;
    }
  }
}

TEST(ParallelTest, RunsMakeUpAllItems) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 3, 7, 100, 1000}) {
      std::mutex mutex;
      std::vector<int> seen(static_cast<size_t>(count));
      int64_t runs = 0;
      std::set<int64_t> starts;
      const auto start = [&](int64_t first) {
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(starts.insert(first).second || count < threads);
        EXPECT_LT(first, count);
      };
      ForRuns(pool, count, start, [&](int64_t begin, int64_t end, int worker) {
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(worker >= 0 && worker < threads);
        EXPECT_LT(begin, end);
        for (int64_t item = begin; item < end; ++item) ++seen[static_cast<size_t>(item)];
        ++runs;
      });
      EXPECT_EQ(starts.empty(), count == 0);
      EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; })) << threads << " " << count;
      EXPECT_LE(runs, 12 * threads) << count;  // each share of at most 1000 is halved ten times
    }
  }
}

TEST(CeilingsTest, AreOfAPlausibleSize) {
  ThreadPool pool(2);
  for (const KernelSet* set : AvailableKernelSets()) {
    auto meter = CeilingMeter::Create(pool, *set, {.buffer_bytes = 32 << 20, .seconds_each = 0.02});
    ASSERT_TRUE(meter.ok());
    for (const Ceilings& ceilings : {meter->Best(), meter->Now()}) {
      EXPECT_GT(ceilings.read_bytes_per_s, 1e8);
      EXPECT_LT(ceilings.read_bytes_per_s, 1e13);
      EXPECT_GT(ceilings.fp32_flops, 1e8);
      EXPECT_LT(ceilings.fp32_flops, 1e13);
      EXPECT_GE(ceilings.bf16_flops, 1e8);
      EXPECT_GE(ceilings.int8_ops, 0.0);
    }
    for (int64_t bytes : {int64_t{1}, int64_t{5} << 20, int64_t{12} << 20, int64_t{1} << 40}) {
      for (int i = 0; i < 4; ++i) {  // past the end of what is held
        EXPECT_GT(meter->ReadSome(bytes), 1e6) << bytes;
        EXPECT_LT(meter->ReadSome(bytes), 1e13) << bytes;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
