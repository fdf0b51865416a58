// Who is next, against a list that is searched from one end to the other.
#include "engine/waiting_lanes.h"

#include <gtest/gtest.h>

#include <iterator>
#include <map>
#include <random>

namespace kvasir {
namespace {

struct Model {
  std::map<LaneId, WaitingLanes::Place> waiting;
  std::map<uint64_t, int64_t> running;

  std::optional<LaneId> Next() {
    std::optional<LaneId> best;
    for (const auto& [lane, place] : waiting) {
      if (best) {
        const WaitingLanes::Place& other = waiting[*best];
        if (place.priority < other.priority) continue;
        if (place.priority == other.priority && running[place.client] >= running[other.client]) continue;
      }
      best = lane;
    }
    return best;
  }
};

TEST(WaitingLanesTest, IsEmptyAtFirst) {
  const WaitingLanes lanes;
  EXPECT_FALSE(lanes.Next().has_value());
  EXPECT_EQ(lanes.size(), 0);
}

TEST(WaitingLanesTest, AgreesWithASearchUnderRandomCalls) {
  std::mt19937 rng(11);
  const auto pick = [&rng](uint32_t count) { return static_cast<int64_t>(rng() % count); };
  for (int round = 0; round < 20; ++round) {
    WaitingLanes lanes;
    Model model;
    LaneId next_id = 1;
    const auto clients = static_cast<uint32_t>(1 + pick(5));
    for (int call = 0; call < 400; ++call) {
      const WaitingLanes::Place place{.priority = static_cast<int32_t>(pick(3)) - 1,
                                      .client = static_cast<uint64_t>(pick(clients))};
      switch (pick(4)) {
        case 0: {
          // Some come back that were there before, so that ids do not only grow.
          LaneId lane = pick(3) == 0 ? 1 + pick(static_cast<uint32_t>(next_id)) : next_id;
          if (model.waiting.contains(lane)) lane = next_id;
          next_id = std::max(next_id, lane + 1);
          lanes.Add(place, lane);
          model.waiting[lane] = place;
          break;
        }
        case 1: {
          if (model.waiting.empty()) break;
          const auto at = std::next(model.waiting.begin(), pick(static_cast<uint32_t>(model.waiting.size())));
          lanes.Remove(at->second, at->first);
          model.waiting.erase(at);
          break;
        }
        case 2:
          lanes.CountRunning(place.client, 1);
          ++model.running[place.client];
          break;
        default:
          if (model.running[place.client] == 0) break;
          lanes.CountRunning(place.client, -1);
          --model.running[place.client];
      }
      ASSERT_EQ(lanes.Next(), model.Next());
      ASSERT_EQ(lanes.size(), static_cast<int64_t>(model.waiting.size()));
    }
  }
}

}  // namespace
}  // namespace kvasir
