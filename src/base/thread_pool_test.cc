#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace kvasir {
namespace {

TEST(ThreadPool, RunsEveryWorkerOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<int> seen(static_cast<size_t>(threads), 0);
      pool.Run([&](int worker) { ++seen[static_cast<size_t>(worker)]; });
      EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(threads), 1));
    }
  }
}

TEST(ThreadPool, AtLeastOneWorker) {
  ThreadPool pool(-3);
  EXPECT_EQ(pool.size(), 1);
}

TEST(ThreadPool, ParallelForCoversTheRangeOnceInChunks) {
  ThreadPool pool(3);
  for (int64_t count : {0, 1, 7, 64, 1000}) {
    for (int64_t grain : {1, 3, 64, 5000}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(count));
      pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int worker) {
        EXPECT_LT(begin, end);
        EXPECT_LE(end - begin, grain);
        EXPECT_GE(worker, 0);
        EXPECT_LT(worker, 3);
        for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
      });
      for (const auto& hit : hits) EXPECT_EQ(hit.load(), 1);
    }
  }
}

TEST(ThreadPool, ResultsAreVisibleAfterRun) {
  ThreadPool pool(4);
  std::vector<int64_t> partial(4);
  for (int64_t round = 0; round < 1000; ++round) {
    pool.Run([&](int worker) { partial[static_cast<size_t>(worker)] = round * worker; });
    EXPECT_EQ(std::accumulate(partial.begin(), partial.end(), int64_t{0}), round * 6);
  }
}

TEST(ThreadPool, SharedRunsWaitForThoseWhoJoined) {
  ThreadPool pool(4);
  for (int round = 0; round < 3000; ++round) {
    std::atomic<int> next{0};
    std::atomic<int> done{0};
    pool.RunShared([&](int worker) {
      EXPECT_LT(worker, 4);
      while (next.fetch_add(1) < 20) ++done;
    });
    ASSERT_EQ(done.load(), 20);
    // Runs in which every worker counts and shared ones may follow each other in any order.
    if (round % 3 == 0) {
      std::atomic<int> ran{0};
      pool.Run([&](int) { ++ran; });
      ASSERT_EQ(ran.load(), 4);
    }
  }
}

TEST(ThreadPool, BarrierSeparatesPhases) {
  ThreadPool pool(3);
  std::atomic<int> arrived{0};
  for (int round = 0; round < 100; ++round) {
    arrived = 0;
    pool.Run([&](int) {
      ++arrived;
      pool.Barrier();
      EXPECT_EQ(arrived.load(), 3);
      pool.Barrier();
    });
  }
}

TEST(ThreadPool, NestedCallsRunInline) {
  ThreadPool pool(3);
  std::atomic<int> inner{0};
  pool.Run([&](int) {
    pool.Run([&](int) { ++inner; });
    pool.ParallelFor(5, 1, [&](int64_t begin, int64_t end, int) { inner += static_cast<int>(end - begin); });
  });
  EXPECT_EQ(inner.load(), 3 * (3 + 5));
}

TEST(ThreadPool, SleepingWorkersWakeUp) {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // longer than workers spin
    std::atomic<int> ran{0};
    pool.Run([&](int) { ++ran; });
    EXPECT_EQ(ran.load(), 2);
  }
}

}  // namespace
}  // namespace kvasir
