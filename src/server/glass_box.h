// What the engine does at this moment, for who watches.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/batch_loop.h"
#include "engine/engine.h"

namespace kvasir::server {

/// The map of the pool's blocks: one character for each, which keeps its place for as long as the block is in use.
/// '.' free, 'u' held by one sequence, 's' by several, 'c' by nobody but the tree of prefixes. Not thread-safe.
class BlockMap {
 public:
  /// The blocks in use now, of `total`.
  std::string Draw(const std::vector<KvBlock>& blocks, int64_t total);

 private:
  std::unordered_map<int32_t, size_t> place_;  // of a block's id
  std::vector<int32_t> at_;                    // by place; -1: free
};

/// Several places of a map as one: the liveliest of them.
std::string ShortenMap(const std::string& map, size_t per_char);

/// Takes pictures of the engine's steps, five a second at most and none while nobody watches. Thread-safe.
class GlassBox {
 public:
  /// From the engine's thread, after a step.
  void Step(const Engine& engine, const BatchStep& step, const SchedulerCounts& counts);

  void AddWatcher() { watchers_.fetch_add(1); }
  void RemoveWatcher() { watchers_.fetch_sub(1); }

  struct Picture {
    int64_t number = 0;  // a newer one has a larger number; 0: there is none yet
    std::string json;
  };
  Picture Latest() const;

 private:
  using Clock = std::chrono::steady_clock;

  std::atomic<int64_t> watchers_ = 0;
  // Of the engine's thread.
  int64_t steps_ = 0;
  Clock::time_point last_{};
  int64_t last_step_ = 0;
  int64_t tokens_since_last_ = 0;
  BlockMap map_;

  mutable std::mutex mutex_;
  Picture picture_;
};

/// Steps are watched while it lives.
class Watching {
 public:
  explicit Watching(GlassBox& box) : box_(box) { box_.AddWatcher(); }
  ~Watching() { box_.RemoveWatcher(); }
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;

 private:
  GlassBox& box_;
};

}  // namespace kvasir::server
