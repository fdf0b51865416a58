#include "engine/waiting_lanes.h"

#include "base/status.h"

namespace kvasir {

void WaitingLanes::Add(const Place& place, LaneId lane) {
  Client& client = clients_[place.client];
  std::set<LaneId>& lanes = client.waiting[place.priority];
  if (!lanes.empty()) turns_.erase(TurnOf(client, place.priority, lanes));
  KVASIR_CHECK(lanes.insert(lane).second);
  turns_.insert(TurnOf(client, place.priority, lanes));
  ++size_;
}

void WaitingLanes::Remove(const Place& place, LaneId lane) {
  Client& client = clients_.at(place.client);
  const auto level = client.waiting.find(place.priority);
  KVASIR_CHECK(level != client.waiting.end());
  std::set<LaneId>& lanes = level->second;
  turns_.erase(TurnOf(client, place.priority, lanes));
  KVASIR_CHECK(lanes.erase(lane) == 1);
  if (lanes.empty()) {
    client.waiting.erase(level);
  } else {
    turns_.insert(TurnOf(client, place.priority, lanes));
  }
  --size_;
  DropIfIdle(place.client);
}

void WaitingLanes::CountRunning(uint64_t id, int64_t more) {
  Client& client = clients_[id];
  for (const auto& [priority, lanes] : client.waiting) turns_.erase(TurnOf(client, priority, lanes));
  client.running += more;
  KVASIR_CHECK(client.running >= 0);
  for (const auto& [priority, lanes] : client.waiting) turns_.insert(TurnOf(client, priority, lanes));
  DropIfIdle(id);
}

void WaitingLanes::DropIfIdle(uint64_t id) {
  const auto client = clients_.find(id);
  if (client->second.running == 0 && client->second.waiting.empty()) clients_.erase(client);
}

std::optional<LaneId> WaitingLanes::Next() const {
  if (turns_.empty()) return std::nullopt;
  return turns_.begin()->first;
}

}  // namespace kvasir
