// The stacks of a grammar that is being run, and sets of them, each kept once and known by a number.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace kvasir {

/// Numbers for things that are all different, by open addressing. Holds no things: they are asked for by number.
class NumberTable {
 public:
  /// The number of the thing with this hash for which same(number) holds; a new one, `count`, when there is none, and
  /// then the caller adds it. hash_of(number) gives the hash of each of the `count` things before.
  template <typename Same, typename HashOf>
  int32_t Find(uint64_t hash, size_t count, Same same, HashOf hash_of) {
    if (2 * (count + 1) > slots_.size()) {
      slots_.assign(std::max<size_t>(1024, 2 * slots_.size()), -1);
      for (size_t i = 0; i < count; ++i) slots_[Free(hash_of(i))] = static_cast<int32_t>(i);
    }
    size_t slot = hash & (slots_.size() - 1);
    for (; slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
      if (same(static_cast<size_t>(slots_[slot]))) return slots_[slot];
    }
    slots_[slot] = static_cast<int32_t>(count);
    return slots_[slot];
  }

  static uint64_t Mix(uint64_t a, uint64_t b) {
    const uint64_t x = (a ^ (b + 0x9E3779B97F4A7C15u + (a << 6) + (a >> 2))) * 0xBF58476D1CE4E5B9u;
    return x ^ (x >> 29);
  }

 private:
  size_t Free(uint64_t hash) const {
    size_t slot = hash & (slots_.size() - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
    return slot;
  }
  std::vector<int32_t> slots_;
};

/// A rule that is being run: where it is, and what called it.
struct JsonFrame {
  int32_t node = 0;
  int32_t below = -1;  // the frame that called; -1: none
  int32_t depth = 0;   // frames below
  int64_t count = 0;
};

/// Stacks of frames. Frames are shared by all stacks that have them at the bottom.
class JsonFrames {
 public:
  int32_t Of(int32_t node, int64_t count, int32_t below) {
    const auto hash = [](const JsonFrame& frame) {
      return NumberTable::Mix(NumberTable::Mix(static_cast<uint64_t>(frame.node), static_cast<uint64_t>(frame.count)),
                              static_cast<uint64_t>(frame.below));
    };
    JsonFrame wanted{.node = node, .below = below, .count = count};
    const int32_t number = table_.Find(
        hash(wanted), frames_.size(),
        [&](size_t i) { return frames_[i].node == node && frames_[i].count == count && frames_[i].below == below; },
        [&](size_t i) { return hash(frames_[i]); });
    if (static_cast<size_t>(number) == frames_.size()) {
      if (below >= 0) wanted.depth = frames_[static_cast<size_t>(below)].depth + 1;
      frames_.push_back(wanted);
    }
    return number;
  }
  const JsonFrame& operator[](int32_t frame) const { return frames_[static_cast<size_t>(frame)]; }
  size_t size() const { return frames_.size(); }

 private:
  NumberTable table_;
  std::vector<JsonFrame> frames_;
};

/// Sets of frames, the tops of stacks, and whether a text may end there.
class JsonStates {
 public:
  /// REQUIRES: sorted, each frame once.
  int32_t Of(std::span<const int32_t> frames, bool accepts) {
    const int32_t number = table_.Find(
        Hash(frames, accepts), entries_.size(),
        [&](size_t i) { return entries_[i].accepts == accepts && std::ranges::equal(FramesOf(i), frames); },
        [&](size_t i) { return Hash(FramesOf(i), entries_[i].accepts); });
    if (static_cast<size_t>(number) == entries_.size()) {
      entries_.push_back({static_cast<uint32_t>(members_.size()), static_cast<uint32_t>(frames.size()), accepts});
      members_.insert(members_.end(), frames.begin(), frames.end());
    }
    return number;
  }
  std::span<const int32_t> FramesOf(size_t state) const {
    return std::span(members_).subspan(entries_[state].first, entries_[state].count);
  }
  bool Accepts(size_t state) const { return entries_[state].accepts; }
  size_t size() const { return entries_.size(); }
  size_t members() const { return members_.size(); }

 private:
  struct Entry {
    uint32_t first;
    uint32_t count;
    bool accepts;
  };
  static uint64_t Hash(std::span<const int32_t> frames, bool accepts) {
    uint64_t hash = accepts ? 1 : 0;
    for (const int32_t frame : frames) hash = NumberTable::Mix(hash, static_cast<uint64_t>(frame));
    return hash;
  }
  NumberTable table_;
  std::vector<Entry> entries_;
  std::vector<int32_t> members_;
};

}  // namespace kvasir
