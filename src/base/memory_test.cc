#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/checked.h"
#include "base/limits.h"
#include "base/mapped_file.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;

TEST(Buffer, IsZeroedAlignedAndCounted) {
  const int64_t before = GetMemoryUse(MemoryOwner::kOther).current;
  for (int64_t bytes : {int64_t{1}, int64_t{63}, int64_t{100'000}, (int64_t{4} << 20) + 5}) {
    auto buffer = Buffer::Allocate(bytes, MemoryOwner::kOther);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(buffer->size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    if (bytes >= (4 << 20)) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % (2 << 20), 0u);
    }
    for (int64_t i = 0; i < bytes; i += 61) EXPECT_EQ(buffer->data()[i], std::byte{0});
    std::memset(buffer->data(), 0xff, static_cast<size_t>(bytes));
    EXPECT_EQ(GetMemoryUse(MemoryOwner::kOther).current, before + bytes);
    const Buffer moved = *std::move(buffer);
    EXPECT_EQ(GetMemoryUse(MemoryOwner::kOther).current, before + bytes);
  }
  EXPECT_EQ(GetMemoryUse(MemoryOwner::kOther).current, before);
}

TEST(Buffer, ImpossibleSizesAreErrors) {
  EXPECT_FALSE(Buffer::Allocate(-1, MemoryOwner::kOther).ok());
  EXPECT_EQ(Buffer::Allocate(INT64_MAX, MemoryOwner::kOther).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Buffer::Allocate(int64_t{1} << 46, MemoryOwner::kOther).status().code(), StatusCode::kResourceExhausted);
  const auto empty = Buffer::Allocate(0, MemoryOwner::kOther);
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->size(), 0);
}

TEST(Buffer, PeaksAreKeptUntilReset) {
  {
    const auto buffer = Buffer::Allocate(1 << 20, MemoryOwner::kOther);
    ASSERT_TRUE(buffer.ok());
  }
  EXPECT_GE(GetMemoryUse(MemoryOwner::kOther).peak, 1 << 20);
  ResetMemoryPeaks();
  EXPECT_EQ(GetMemoryUse(MemoryOwner::kOther).peak, GetMemoryUse(MemoryOwner::kOther).current);
}

TEST(Arena, GivesDistinctAlignedMemoryAndReusesIt) {
  Arena arena;
  for (int round = 0; round < 3; ++round) {
    arena.Reset();
    std::vector<int32_t*> blocks;
    for (int32_t i = 0; i < 100; ++i) {
      auto block = arena.Allocate<int32_t>(1000);
      ASSERT_TRUE(block.ok());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(*block) % 64, 0u);
      std::fill_n(*block, 1000, i);
      blocks.push_back(*block);
    }
    for (int32_t i = 0; i < 100; ++i) EXPECT_EQ(blocks[static_cast<size_t>(i)][999], i);
  }
  arena.Reset();
  const int64_t settled = arena.capacity();
  for (int32_t i = 0; i < 100; ++i) ASSERT_TRUE(arena.Allocate<int32_t>(1000).ok());
  EXPECT_EQ(arena.capacity(), settled);
}

TEST(Arena, RewindFreesWhatCameAfterTheMark) {
  Arena arena;
  ASSERT_TRUE(arena.Allocate<char>(100).ok());
  const Arena::Mark mark = arena.GetMark();
  const auto first = arena.Allocate<char>(100);
  ASSERT_TRUE(arena.Allocate<char>(10 << 20).ok());
  arena.Rewind(mark);
  const auto again = arena.Allocate<char>(100);
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(*first, *again);
}

TEST(Arena, CountsWhatItHandsOutNotWhatItKeeps) {
  constexpr MemoryOwner kOwner = MemoryOwner::kOther;
  const int64_t before = GetMemoryUse(kOwner).current;
  const auto counted = [&] { return GetMemoryUse(kOwner).current - before; };
  {
    Arena arena(kOwner);
    ResetMemoryPeaks();
    ASSERT_TRUE(arena.Allocate<char>(100).ok());
    EXPECT_EQ(counted(), 128);
    const Arena::Mark mark = arena.GetMark();
    ASSERT_TRUE(arena.Allocate<char>(10 << 20).ok());
    arena.Rewind(mark);
    ASSERT_TRUE(arena.Allocate<char>(1 << 20).ok());
    EXPECT_EQ(counted(), (10 << 20) + 128);  // the most at once, until Reset
    arena.Reset();
    EXPECT_EQ(counted(), 0);
    EXPECT_GT(arena.capacity(), 10 << 20);
    EXPECT_EQ(GetMemoryUse(kOwner).peak - before, (10 << 20) + 128);
    ResetMemoryPeaks();
    ASSERT_TRUE(arena.Allocate<char>(64).ok());
    EXPECT_EQ(GetMemoryUse(kOwner).peak - before, 64);
    const Arena moved = std::move(arena);
    EXPECT_EQ(counted(), 64);
  }
  EXPECT_EQ(counted(), 0);
}

TEST(Arena, ImpossibleSizesAreErrors) {
  Arena arena;
  EXPECT_FALSE(arena.Allocate<double>(-1).ok());
  EXPECT_FALSE(arena.Allocate<double>(INT64_MAX / 4).ok());
}

class MappedFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("kvasir_mapped_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(MappedFileTest, MapsContentAndSurvivesGivingBack) {
  const auto path = folder_ / "data";
  std::string content(100'000, 'x');
  content.back() = 'y';
  std::ofstream(path) << content;
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto bytes = (*file)->bytes();
  ASSERT_EQ(bytes.size(), content.size());
  (*file)->WillNeed(bytes.data() + 5, 50'000);
  (*file)->GiveBack(bytes.data() + 5, 90'000);
  EXPECT_EQ(std::memcmp(bytes.data(), content.data(), content.size()), 0);
}

TEST_F(MappedFileTest, RefusesWhatIsNoRegularFile) {
  EXPECT_EQ(MappedFile::Open(folder_ / "none").status().code(), StatusCode::kNotFound);
  EXPECT_THAT(MappedFile::Open(folder_).status().message(), HasSubstr("a directory"));
  std::ofstream(folder_ / "empty").flush();
  EXPECT_THAT(MappedFile::Open(folder_ / "empty").status().message(), HasSubstr("empty"));
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(MappedFile::Open(folder_ / "pipe").status().message(), HasSubstr("pipe"));
}

TEST(Limits, AreSensible) {
  EXPECT_GE(AvailableProcessors(), 1);
  EXPECT_GT(AvailableMemory(), 0);
  EXPECT_GT(PeakResidentMemory(), 0);
  EXPECT_LE(ResidentMemory(), PeakResidentMemory());
}

TEST(Limits, AMemoryLimitBoundsWhatIsAvailable) {
  const int64_t free = AvailableMemory();
  SetMemoryLimit(int64_t{1} << 60);
  EXPECT_EQ(MemoryLimit(), int64_t{1} << 60);
  EXPECT_GT(AvailableMemory(), free / 2);
  SetMemoryLimit(1);  // less than the process has already
  EXPECT_EQ(AvailableMemory(), 0);
  constexpr int64_t kLarge = int64_t{1} << 30;
  SetMemoryLimit(kLarge);
  const int64_t left = AvailableMemory();
  EXPECT_GT(left, 0);
  EXPECT_LT(left, kLarge);
  {
    // Counted although nobody has touched it yet.
    const auto buffer = Buffer::Allocate(kLarge / 2, MemoryOwner::kOther);
    ASSERT_TRUE(buffer.ok());
    EXPECT_LE(AvailableMemory(), kLarge / 2);
  }
  EXPECT_GT(AvailableMemory(), kLarge / 2);
  SetMemoryLimit(0);
  EXPECT_GT(AvailableMemory(), free / 2);
}

TEST(Limits, ThePeakOfTheProcessCanBeginAnew) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  {
    auto buffer = Buffer::Allocate(kBytes, MemoryOwner::kOther);
    ASSERT_TRUE(buffer.ok());
    std::memset(buffer->data(), 1, kBytes);
  }
  const int64_t peak = PeakResidentMemory();
  EXPECT_GT(peak, kBytes);
  if (!ResetPeakResidentMemory()) GTEST_SKIP() << "/proc/self/clear_refs cannot be written here";
  EXPECT_LT(PeakResidentMemory(), peak - kBytes / 2);
}

TEST(Limits, ProcessorsFollowTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(before), &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
      break;
    }
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(AvailableProcessors(), 1);
  ASSERT_EQ(::sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(Checked, FindsOverflow) {
  EXPECT_EQ(CheckedMul<int64_t>(3, 4), 12);
  EXPECT_EQ(CheckedMul<int64_t>(INT64_MAX, 2), std::nullopt);
  EXPECT_EQ(CheckedAdd<int64_t>(INT64_MAX, 1), std::nullopt);
  const int64_t dims[] = {int64_t{1} << 40, int64_t{1} << 40};
  EXPECT_EQ(CheckedProduct(dims), std::nullopt);
  const int64_t negative[] = {3, -1};
  EXPECT_EQ(CheckedProduct(negative), std::nullopt);
  EXPECT_EQ(CheckedProduct({}), 1);
  EXPECT_EQ(RoundUp(17, 16), 32);
  EXPECT_EQ(CeilDiv(16, 16), 1);
}

}  // namespace
}  // namespace kvasir
