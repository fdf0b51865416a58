// Handing out work to a pool's threads.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "base/thread_pool.h"

namespace kvasir {

/// Items 0 … count-1, each handed out once: every worker first gets a contiguous share of its own, in order, so that
/// neighbouring items (and the memory they read) stay with one core, and then takes over from slower workers.
class WorkShares {
 public:
  WorkShares(int64_t count, int workers)
      : count_(count), shares_(std::clamp<int64_t>(std::min<int64_t>(count, workers), 1, kMax)) {
    for (int64_t s = 0; s < shares_; ++s) {
      share_[s].next.store(count * s / shares_, std::memory_order_relaxed);
      share_[s].end = count * (s + 1) / shares_;
    }
  }

  /// The item that the worker's own share began with.
  int64_t Begin(int worker) const { return count_ * (worker % shares_) / shares_; }

  /// The next item for `worker`, or -1 when there is none left. Thread-safe.
  int64_t Next(int worker) {
    for (int64_t i = 0; i < shares_; ++i) {
      Share& share = share_[(worker + i) % shares_];
      if (share.next.load(std::memory_order_relaxed) >= share.end) continue;
      const int64_t item = share.next.fetch_add(1, std::memory_order_relaxed);
      if (item < share.end) return item;
    }
    return -1;
  }

  /// The next items for `worker`: half of what is left of a share, at least one; empty when there is none left.
  /// Runs get shorter, so that workers read long stretches and yet end together. Not mixed with Next. Thread-safe.
  struct Run {
    int64_t begin = 0;
    int64_t end = 0;
  };
  Run NextRun(int worker) {
    for (int64_t i = 0; i < shares_; ++i) {
      Share& share = share_[(worker + i) % shares_];
      int64_t begin = share.next.load(std::memory_order_relaxed);
      while (begin < share.end) {
        const int64_t end = begin + (share.end - begin + 1) / 2;
        if (share.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) return {begin, end};
      }
    }
    return {};
  }

 private:
  static constexpr int64_t kMax = 64;
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  int64_t count_;
  int64_t shares_;
  std::array<Share, kMax> share_;
};

/// Runs fn(item, worker) for every item of [0, count) on all of the pool's threads.
template <class Fn>
void ForItems(ThreadPool& pool, int64_t count, const Fn& fn) {
  if (count <= 0) return;
  if (count == 1 || pool.size() == 1) {
    for (int64_t item = 0; item < count; ++item) fn(item, 0);
    return;
  }
  WorkShares shares(count, pool.size());
  pool.RunShared([&](int worker) {
    for (int64_t item = shares.Next(worker); item >= 0; item = shares.Next(worker)) fn(item, worker);
  });
}

/// Runs fn(begin, end, worker) for runs of items that make up [0, count), each in one run, on all threads. Before its
/// first run each calls start(the item that its own share begins with).
template <class Start, class Fn>
void ForRuns(ThreadPool& pool, int64_t count, const Start& start, const Fn& fn) {
  if (count <= 0) return;
  if (count == 1 || pool.size() == 1) {
    start(int64_t{0});
    fn(int64_t{0}, count, 0);
    return;
  }
  WorkShares shares(count, pool.size());
  pool.RunShared([&](int worker) {
    start(shares.Begin(worker));
    for (auto run = shares.NextRun(worker); run.begin < run.end; run = shares.NextRun(worker)) {
      fn(run.begin, run.end, worker);
    }
  });
}

}  // namespace kvasir
