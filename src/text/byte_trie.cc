#include "text/byte_trie.h"

#include <algorithm>

namespace kvasir {

namespace {
constexpr size_t kMaxNodes = 16u << 20;
}  // namespace

ByteTrie::ByteTrie() : edges_(64) { std::fill(std::begin(first_), std::end(first_), -1); }

Status ByteTrie::AddNode(int32_t* node) {
  if (values_.size() >= kMaxNodes) return ResourceExhausted("the vocabulary's strings need more than 16 Mi trie nodes");
  *node = static_cast<int32_t>(values_.size());
  values_.push_back(-1);
  return OkStatus();
}

Status ByteTrie::Add(std::string_view key, int32_t value) {
  if (key.empty()) return OkStatus();
  int32_t& first = first_[static_cast<uint8_t>(key[0])];
  if (first < 0) RETURN_IF_ERROR(AddNode(&first));
  int32_t node = first;
  for (size_t i = 1; i < key.size(); ++i) {
    const auto byte = static_cast<uint8_t>(key[i]);
    int32_t child = Child(node, byte);
    if (child < 0) {
      RETURN_IF_ERROR(AddNode(&child));
      if ((edge_count_ + 1) * 2 > edges_.size()) Grow();
      const uint64_t edge = Key(node, byte);
      const size_t mask = edges_.size() - 1;
      size_t slot = Slot(edge, mask);
      while (edges_[slot].child >= 0) slot = (slot + 1) & mask;
      edges_[slot] = {edge, child};
      ++edge_count_;
    }
    node = child;
  }
  values_[static_cast<size_t>(node)] = value;
  return OkStatus();
}

void ByteTrie::Grow() {
  std::vector<Edge> old(edges_.size() * 2);
  old.swap(edges_);
  const size_t mask = edges_.size() - 1;
  for (const Edge& edge : old) {
    if (edge.child < 0) continue;
    size_t slot = Slot(edge.key, mask);
    while (edges_[slot].child >= 0) slot = (slot + 1) & mask;
    edges_[slot] = edge;
  }
}

}  // namespace kvasir
