// A tree of the token sequences whose keys and values are known, block by block (K5).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kv/block_pool.h"

namespace kvasir {

/// A radix tree over token ids in which every edge is one whole block: a node is the block behind its parent's, found
/// by a hash of its tokens among the parent's children and told from others by the tokens themselves, so that hashes
/// that collide cost time and nothing else. Each scope has a root of its own. As in RadixAttention (Zheng et al. 2023,
/// arXiv:2312.07104), nodes are in the order of their last use; a node is never older than those below it.
///
/// The tree only names blocks: whoever uses it holds the references. Not thread-safe.
class PrefixTree {
 public:
  using Hash = uint64_t (*)(std::span<const int32_t> tokens);

  struct Node {
    std::vector<BlockId> blocks;  // [layers]; the first names the node
    std::vector<int32_t> tokens;  // of this block; none: a root

   private:
    friend class PrefixTree;
    uint64_t hash = 0;
    Node* parent = nullptr;
    std::unordered_multimap<uint64_t, Node*> children;  // by hash
    std::list<Node*>::iterator use;
    const std::string* scope = nullptr;  // of a root
  };

  /// block_tokens: > 0. hash: null for a good one.
  explicit PrefixTree(int64_t block_tokens, Hash hash = nullptr);
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  /// The nodes of the longest known prefix of `tokens`, whole blocks only, from the root down.
  std::vector<Node*> Find(std::string_view scope, std::span<const int32_t> tokens) const;

  /// A new node below `parent` (null: the scope's root), now the one used last. tokens: [block_tokens], blocks:
  /// [layers]. Throws std::bad_alloc, and nothing changed. REQUIRES: no node has these tokens there, or this first
  /// block anywhere.
  Node* Add(std::string_view scope, Node* parent, std::span<const int32_t> tokens, std::vector<BlockId> blocks);

  /// Makes the nodes from a root's child down the ones used last.
  void Touch(std::span<Node* const> path);

  /// The node with this first block, or null.
  Node* NodeOf(BlockId first_block) const;

  /// How many nodes, counted up to `most`, `unused` is true of.
  int64_t CountUnused(int64_t most, const std::function<bool(const Node&)>& unused) const;

  /// Removes `count` nodes of which `unused` is true, the oldest first and with them all below, and names each one that
  /// goes. REQUIRES: there are that many.
  void RemoveOldest(int64_t count, const std::function<bool(const Node&)>& unused,
                    const std::function<void(const Node&)>& removed);

  /// Removes a node and all below it, the lowest first, and names each one that goes.
  void Remove(Node* node, const std::function<void(const Node&)>& removed);

  void ForEach(const std::function<void(const Node&)>& visit) const {
    for (const Node* node : uses_) visit(*node);
  }

  int64_t size() const { return static_cast<int64_t>(nodes_.size()); }

 private:
  void RemoveLeaf(Node* node);
  void DropIfEmptyRoot(Node* node);

  int64_t block_tokens_;
  Hash hash_;
  std::map<std::string, Node, std::less<>> roots_;  // by scope; each has children
  std::unordered_map<BlockId, std::unique_ptr<Node>> nodes_;
  std::list<Node*> uses_;  // used last first
};

}  // namespace kvasir
