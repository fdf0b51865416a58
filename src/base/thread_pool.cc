#include "base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#include "base/cpu_relax.h"
#include "base/log.h"

namespace kvasir {
namespace {

/// How long a waiting thread spins before it sleeps: longer than the gaps between the ops of one step.
constexpr std::chrono::microseconds kSpin{100};

/// Waits until `value` differs from `old`: first spinning, then on the futex behind atomic::wait.
uint32_t WaitForChange(const std::atomic<uint32_t>& value, uint32_t old, bool may_spin) {
  if (may_spin) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 64; ++i) {
        const uint32_t now = value.load(std::memory_order_acquire);
        if (now != old) return now;
        CpuRelax();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  uint32_t now = value.load(std::memory_order_acquire);
  while (now == old) {
    value.wait(old, std::memory_order_acquire);
    now = value.load(std::memory_order_acquire);
  }
  return now;
}

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInsideMask = kOpen - 1;

thread_local bool inside_pool = false;
thread_local int current_worker = 0;

}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> threads;
  FunctionRef<void(int)>* task = nullptr;
  bool exactly_once = false;  // a Run: every worker takes part and is waited for
  std::atomic<bool> stopping{false};
  bool may_spin = true;  // not when there are more workers than processors: a spinner would keep a worker from running

  alignas(64) std::atomic<uint32_t> generation{0};  // changes when a task begins
  /// Generation (high half), whether workers may still join (kOpen), and how many are inside (the rest).
  alignas(64) std::atomic<uint64_t> gate{0};
  alignas(64) std::atomic<uint32_t> remaining{0};  // of a Run: workers that have not finished it
  alignas(64) std::atomic<uint32_t> inside{0};     // changes when a worker leaves a closed gate; waited on
  alignas(64) std::atomic<uint32_t> barrier_arrived{0};
  alignas(64) std::atomic<uint32_t> barrier_generation{0};

  /// Opens the gate for `fn` and wakes the workers.
  void Begin(FunctionRef<void(int)>& fn, bool exact) {
    task = &fn;
    exactly_once = exact;
    if (exact) remaining.store(static_cast<uint32_t>(threads.size()), std::memory_order_relaxed);
    const uint32_t next = generation.load(std::memory_order_relaxed) + 1;
    gate.store((uint64_t{next} << 32) | kOpen, std::memory_order_release);
    generation.store(next, std::memory_order_release);
    generation.notify_all();
  }

  /// Joins the task of generation `seen`, unless its gate has closed.
  bool Enter(uint32_t seen) {
    uint64_t now = gate.load(std::memory_order_acquire);
    while ((now >> 32) == seen && (now & kOpen) != 0) {
      if (gate.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void Leave() {
    if (exactly_once && remaining.fetch_sub(1, std::memory_order_acq_rel) == 1) remaining.notify_one();
    const uint64_t before = gate.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & kOpen) == 0 && (before & kInsideMask) == 1) {
      inside.fetch_add(1, std::memory_order_release);
      inside.notify_one();
    }
  }

  /// Closes the gate and waits for those inside.
  void Finish() {
    if (exactly_once) {
      uint32_t left = remaining.load(std::memory_order_acquire);
      while (left != 0) left = WaitForChange(remaining, left, may_spin);
    }
    uint32_t seen = inside.load(std::memory_order_acquire);
    const uint64_t before = gate.fetch_and(~kOpen, std::memory_order_acq_rel);
    if ((before & kInsideMask) == 0) return;
    while ((gate.load(std::memory_order_acquire) & kInsideMask) != 0) {
      seen = WaitForChange(inside, seen, may_spin);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  threads = std::max(threads, 1);
  state_->may_spin = threads <= static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int worker = 1; worker < threads; ++worker) {
    try {
      state_->threads.emplace_back([state = state_.get(), worker] {
        inside_pool = true;
        current_worker = worker;
        uint32_t seen = 0;
        while (true) {
          seen = WaitForChange(state->generation, seen, state->may_spin);
          if (state->stopping) return;
          if (!state->Enter(seen)) continue;
          (*state->task)(worker);
          state->Leave();
        }
      });
    } catch (const std::system_error& error) {
      LogWarning("only {} of {} threads could be started: {}", worker, threads, error.what());
      break;
    }
  }
}

ThreadPool::~ThreadPool() {
  state_->stopping = true;
  state_->generation.fetch_add(1, std::memory_order_release);
  state_->generation.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->threads.size()) + 1; }

void ThreadPool::Run(FunctionRef<void(int)> fn) {
  if (state_->threads.empty() || inside_pool) {
    // A nested call has the whole work to do alone, as if the pool had one worker.
    const int n = state_->threads.empty() ? 1 : size();
    if (n == 1) {
      fn(0);
    } else {
      for (int worker = 0; worker < n; ++worker) fn(worker);
    }
    return;
  }
  state_->Begin(fn, true);
  inside_pool = true;
  fn(0);
  inside_pool = false;
  state_->Finish();
}

void ThreadPool::RunShared(FunctionRef<void(int)> fn) {
  if (state_->threads.empty() || inside_pool) {
    fn(inside_pool ? current_worker : 0);
    return;
  }
  state_->Begin(fn, false);
  inside_pool = true;
  fn(0);
  inside_pool = false;
  state_->Finish();
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t, int)> fn) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (count <= grain || size() == 1 || inside_pool) {
    // In chunks all the same: callees may size their scratch by the grain.
    for (int64_t begin = 0; begin < count; begin += grain) {
      fn(begin, std::min(begin + grain, count), inside_pool ? current_worker : 0);
    }
    return;
  }
  std::atomic<int64_t> next{0};
  RunShared([&](int worker) {
    while (true) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      fn(begin, std::min(begin + grain, count), worker);
    }
  });
}

void ThreadPool::Barrier() {
  State& state = *state_;
  const uint32_t workers = static_cast<uint32_t>(size());
  if (workers == 1) return;
  const uint32_t generation = state.barrier_generation.load(std::memory_order_acquire);
  if (state.barrier_arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == workers) {
    state.barrier_arrived.store(0, std::memory_order_relaxed);
    state.barrier_generation.fetch_add(1, std::memory_order_release);
    state.barrier_generation.notify_all();
  } else {
    WaitForChange(state.barrier_generation, generation, state.may_spin);
  }
}

}  // namespace kvasir
