// Sequences that wait, and which of them is next.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>

namespace kvasir {

using LaneId = int64_t;  // ascending as they come

/// Of those that wait, with the highest priority: one of the client that has the fewest sequences running, so that
/// nobody's hundred requests keep another's only one waiting; then who came first. However many wait, finding the next
/// one takes no time, and a change takes that of a few look-ups for every priority at which its client waits. Not
/// thread-safe.
class WaitingLanes {
 public:
  /// Who is served in which order.
  struct Place {
    int32_t priority = 0;  // the larger ones come first
    uint64_t client = 0;
  };

  void Add(const Place& place, LaneId lane);
  /// REQUIRES: it waits there.
  void Remove(const Place& place, LaneId lane);

  /// So many more sequences of the client run (fewer: negative).
  void CountRunning(uint64_t client, int64_t more);

  std::optional<LaneId> Next() const;
  int64_t size() const { return size_; }

 private:
  struct Client {
    int64_t running = 0;
    std::map<int32_t, std::set<LaneId>> waiting;  // by priority; none is empty
  };
  /// A client's turn at a priority.
  struct Turn {
    int32_t priority;
    int64_t running;
    LaneId first;
    friend bool operator<(const Turn& a, const Turn& b) {
      if (a.priority != b.priority) return a.priority > b.priority;
      return a.running != b.running ? a.running < b.running : a.first < b.first;
    }
  };

  static Turn TurnOf(const Client& client, int32_t priority, const std::set<LaneId>& lanes) {
    return {.priority = priority, .running = client.running, .first = *lanes.begin()};
  }
  void DropIfIdle(uint64_t client);

  std::map<uint64_t, Client> clients_;  // of whom something waits or runs
  std::set<Turn> turns_;                // one for each client and priority at which it waits
  int64_t size_ = 0;
};

}  // namespace kvasir
