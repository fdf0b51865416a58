#include "kv/prefix_tree.h"

#include <algorithm>
#include <iterator>

#include "base/status.h"

namespace kvasir {
namespace {

uint64_t HashTokens(std::span<const int32_t> tokens) {
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()});
}

}  // namespace

PrefixTree::PrefixTree(int64_t block_tokens, Hash hash)
    : block_tokens_(block_tokens), hash_(hash != nullptr ? hash : HashTokens) {}

std::vector<PrefixTree::Node*> PrefixTree::Find(std::string_view scope, std::span<const int32_t> tokens) const {
  std::vector<Node*> path;
  const auto root = roots_.find(scope);
  if (root == roots_.end()) return path;
  const Node* node = &root->second;
  const auto size = static_cast<size_t>(block_tokens_);
  for (; tokens.size() >= size; tokens = tokens.subspan(size)) {
    const auto block = tokens.first(size);
    const auto [begin, end] = node->children.equal_range(hash_(block));
    const auto child =
        std::find_if(begin, end, [&](const auto& entry) { return std::ranges::equal(entry.second->tokens, block); });
    if (child == end) break;
    node = child->second;
    path.push_back(child->second);
  }
  return path;
}

PrefixTree::Node* PrefixTree::Add(std::string_view scope, Node* parent, std::span<const int32_t> tokens,
                                  std::vector<BlockId> blocks) {
  KVASIR_CHECK(static_cast<int64_t>(tokens.size()) == block_tokens_ && NodeOf(blocks[0]) == nullptr);
  auto made = std::make_unique<Node>();
  Node* node = made.get();
  node->tokens.assign(tokens.begin(), tokens.end());
  node->blocks = std::move(blocks);
  node->hash = hash_(tokens);
  const BlockId name = node->blocks[0];
  nodes_.emplace(name, std::move(made));
  try {
    uses_.push_front(node);
    node->use = uses_.begin();
    if (parent == nullptr) {
      const auto root = roots_.try_emplace(std::string(scope)).first;
      root->second.scope = &root->first;
      parent = &root->second;
    }
    node->parent = parent;
    parent->children.emplace(node->hash, node);
  } catch (...) {
    std::erase(uses_, node);
    nodes_.erase(name);
    if (parent != nullptr) DropIfEmptyRoot(parent);
    throw;
  }
  return node;
}

void PrefixTree::Touch(std::span<Node* const> path) {
  for (size_t i = path.size(); i-- > 0;) uses_.splice(uses_.begin(), uses_, path[i]->use);
}

PrefixTree::Node* PrefixTree::NodeOf(BlockId first_block) const {
  const auto node = nodes_.find(first_block);
  return node == nodes_.end() ? nullptr : node->second.get();
}

int64_t PrefixTree::CountUnused(int64_t most, const std::function<bool(const Node&)>& unused) const {
  int64_t count = 0;
  for (auto node = uses_.begin(); node != uses_.end() && count < most; ++node) count += unused(**node);
  return count;
}

void PrefixTree::RemoveOldest(int64_t count, const std::function<bool(const Node&)>& unused,
                              const std::function<void(const Node&)>& removed) {
  int64_t left = count;
  const auto counted = [&](const Node& node) {
    left -= unused(node);
    removed(node);
  };
  auto behind = uses_.end();
  while (left > 0) {
    KVASIR_CHECK(behind != uses_.begin());
    const auto node = std::prev(behind);
    if (!unused(**node)) {
      behind = node;
      continue;
    }
    // What is below it stands behind it and goes too.
    const bool newest = node == uses_.begin();
    const auto newer = newest ? node : std::prev(node);
    Remove(*node, counted);
    behind = newest ? uses_.begin() : std::next(newer);
  }
}

void PrefixTree::Remove(Node* node, const std::function<void(const Node&)>& removed) {
  for (Node* at = node;;) {
    while (!at->children.empty()) at = at->children.begin()->second;
    Node* parent = at->parent;
    const bool last = at == node;
    removed(*at);
    RemoveLeaf(at);
    if (last) return;
    at = parent;
  }
}

void PrefixTree::DropIfEmptyRoot(Node* node) {
  if (node->scope != nullptr && node->children.empty()) roots_.erase(roots_.find(*node->scope));
}

void PrefixTree::RemoveLeaf(Node* node) {
  Node* parent = node->parent;
  const auto [begin, end] = parent->children.equal_range(node->hash);
  parent->children.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == node; }));
  DropIfEmptyRoot(parent);
  uses_.erase(node->use);
  nodes_.erase(node->blocks[0]);
}

}  // namespace kvasir
