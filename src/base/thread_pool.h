// A fork-join pool for kernels: the caller is worker 0, workers spin briefly and then sleep on a futex.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>

namespace kvasir {

/// A non-owning reference to a callable; valid only during the call it is passed to.
template <typename Signature>
class FunctionRef;
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)  // NOLINT(google-explicit-constructor): a parameter type, as std::function is
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

/// Threads that run one function together. One caller at a time; nested calls run inline on the calling worker.
class ThreadPool {
 public:
  /// `threads` workers in all, the caller included; at least 1. Threads that cannot be created are left out (logged).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  /// Runs fn(worker) once on every worker, 0 … size()-1, and returns when all are done. What fn wrote is visible
  /// afterwards. fn must not throw.
  void Run(FunctionRef<void(int worker)> fn);

  /// Runs fn on the caller and on every worker that comes while the caller is still in it; a worker that is late
  /// (asleep, or its processor busy with something else) is not waited for. For work that is handed out piece by
  /// piece. REQUIRES: when fn returns on the caller, all pieces have been handed out. fn may run again on a worker.
  void RunShared(FunctionRef<void(int worker)> fn);

  /// Runs fn(begin, end, worker) over [0, count) in chunks of at most `grain`, handed out in order to whoever is free.
  void ParallelFor(int64_t count, int64_t grain, FunctionRef<void(int64_t begin, int64_t end, int worker)> fn);

  /// A barrier for all workers. REQUIRES: called by every worker inside a Run that is not nested.
  void Barrier();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
