// A trie over bytes, for finding the vocabulary's strings inside a text.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace kvasir {

/// Maps byte strings to non-negative values. Filled once, then immutable and thread-safe.
class ByteTrie {
 public:
  ByteTrie();
  /// Adds a key; a key that is there already gets the new value. Errors: more than 16 Mi nodes.
  Status Add(std::string_view key, int32_t value);

  /// Calls found(length, value) for every key that begins text[offset…], shortest first.
  template <typename Found>
  void ForEachPrefix(std::string_view text, size_t offset, Found found) const {
    if (offset >= text.size()) return;
    int32_t node = first_[static_cast<uint8_t>(text[offset])];
    for (size_t i = offset + 1; node >= 0; ++i) {
      if (values_[static_cast<size_t>(node)] >= 0) found(i - offset, values_[static_cast<size_t>(node)]);
      if (i >= text.size()) return;
      node = Child(node, static_cast<uint8_t>(text[i]));
    }
  }
  /// Whether any key begins with this byte.
  bool Starts(uint8_t byte) const { return first_[byte] >= 0; }
  bool empty() const { return values_.empty(); }

 private:
  struct Edge {
    uint64_t key = ~uint64_t{0};  // parent and byte
    int32_t child = -1;
  };
  static uint64_t Key(int32_t node, uint8_t byte) { return (static_cast<uint64_t>(node) << 8) | byte; }
  static size_t Slot(uint64_t key, size_t mask) {
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 20) & mask;
  }
  int32_t Child(int32_t node, uint8_t byte) const {
    const uint64_t key = Key(node, byte);
    const size_t mask = edges_.size() - 1;
    for (size_t slot = Slot(key, mask);; slot = (slot + 1) & mask) {
      if (edges_[slot].key == key) return edges_[slot].child;
      if (edges_[slot].child < 0) return -1;
    }
  }
  Status AddNode(int32_t* node);
  void Grow();

  int32_t first_[256];
  std::vector<int32_t> values_;  // by node, -1: no key ends here
  std::vector<Edge> edges_;      // open addressing; size a power of two
  size_t edge_count_ = 0;
};

}  // namespace kvasir
