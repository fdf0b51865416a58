#include "server/glass_box.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <string_view>
#include <unordered_set>

namespace kvasir::server {
namespace {

namespace json = boost::json;

constexpr auto kPause = std::chrono::milliseconds(200);
constexpr size_t kMostMapCharacters = 4096;

char Letter(const KvBlock& block) {
  if (block.holders == 0) return 'c';
  return block.holders == 1 ? 'u' : 's';
}

}  // namespace

std::string BlockMap::Draw(const std::vector<KvBlock>& blocks, int64_t total) {
  // A cache that grows has more blocks than before.
  const auto size = static_cast<size_t>(std::max<int64_t>(total, static_cast<int64_t>(blocks.size())));
  if (at_.size() < size) at_.resize(size, -1);
  std::unordered_set<int32_t> alive;
  for (const KvBlock& block : blocks) alive.insert(block.id);
  for (int32_t& id : at_) {
    if (id < 0 || alive.contains(id)) continue;
    place_.erase(id);
    id = -1;
  }
  size_t next = 0;
  std::string map(at_.size(), '.');
  for (const KvBlock& block : blocks) {
    auto found = place_.find(block.id);
    if (found == place_.end()) {
      while (at_[next] >= 0) ++next;
      at_[next] = block.id;
      found = place_.emplace(block.id, next).first;
    }
    map[found->second] = Letter(block);
  }
  return map;
}

std::string ShortenMap(const std::string& map, size_t per_char) {
  constexpr std::string_view kLiveliest = "suc.";
  std::string shorter;
  for (size_t begin = 0; begin < map.size(); begin += per_char) {
    const std::string_view part = std::string_view(map).substr(begin, per_char);
    shorter += *std::ranges::find_if(kLiveliest, [&](char c) { return part.find(c) != part.npos; });
  }
  return shorter;
}

void GlassBox::Step(const Engine& engine, const BatchStep& step, const SchedulerCounts& counts) {
  if (!step.parts.empty()) ++steps_;
  tokens_since_last_ += step.answers;
  // The last step of all is always shown, or the picture would stay that of a busy engine.
  const auto now = Clock::now();
  const bool busy = counts.running + counts.waiting > 0;
  if (busy && (watchers_.load() == 0 || now - last_ < kPause)) return;
  const double seconds = std::chrono::duration<double>(now - last_).count();
  json::array batch;
  for (const BatchPart& part : step.parts) {
    batch.push_back({{"id", part.request}, {"kind", part.answer ? "answer" : "prompt"}, {"tokens", part.tokens}});
  }
  const KvBlockUse use = engine.CacheBlocks();
  const std::string map = map_.Draw(engine.cache().Blocks(), use.blocks);
  const size_t per_char = (map.size() + kMostMapCharacters - 1) / kMostMapCharacters;
  json::object picture = {
      {"step", steps_},
      {"steps", steps_ - last_step_},
      {"step_ms", step.milliseconds},
      {"batch", std::move(batch)},
      {"running", counts.running},
      {"waiting", counts.waiting},
      {"preempted", counts.preempted},
      {"tokens_per_second", last_ == Clock::time_point() ? 0.0 : static_cast<double>(tokens_since_last_) / seconds},
      {"blocks",
       {{"total", use.blocks},
        {"block_tokens", engine.cache().BlockSlots()},
        {"used", use.used},
        {"cached", use.cached},
        {"free", use.free()},
        {"per_char", std::max<size_t>(per_char, 1)},
        {"map", per_char > 1 ? ShortenMap(map, per_char) : map}}}};
  last_ = now;
  last_step_ = steps_;
  tokens_since_last_ = 0;
  const std::lock_guard lock(mutex_);
  ++picture_.number;
  picture_.json = json::serialize(picture);
}

GlassBox::Picture GlassBox::Latest() const {
  const std::lock_guard lock(mutex_);
  return picture_;
}

}  // namespace kvasir::server
