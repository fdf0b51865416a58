// What JSON texts a schema allows, as an automaton over bytes with a stack.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace kvasir {

/// Arrays, objects and what stands in them, inside each other, at most: as deep as ParseJson reads.
inline constexpr int kMostJsonDepth = 64;

/// A compiled schema. A rule is a kind of value; running it takes a frame of the stack, which holds a node and a count:
/// the items of an array, the characters of a string, or the first property of an object that may still come.
/// Immutable; thread-safe.
struct JsonGrammar {
  /// On what a step depends beside its byte.
  enum class Guard : uint8_t {
    kNone,
    kMore,      // count < most; adds 1
    kEnough,    // count >= least
    kItem,      // kMore, and the depth has room for the node's rule
    kName,      // `list` has a property that may come next, and the depth has room for it
    kNamed,     // property `list` may come next; the count is then behind it
    kAnyMore,   // some property may come next, or one with a name of the model's own
    kExtra,     // one with a name of its own: no required one is missing; the count is then behind all others
    kComplete,  // no required property is missing
  };

  struct Edge {
    uint8_t low;
    uint8_t high;  // included
    Guard guard = Guard::kNone;
    int32_t next = 0;
    int32_t list = 0;
  };

  struct Node {
    enum Kind : uint8_t {
      kBytes,  // a byte along one of its edges; if `ends`, the rule may also end
      kSplit,  // goes on at each of its targets
      kTest,   // goes on at `next` if the guard holds
      kCall,   // runs `rule`, then `next`
      kJump,   // runs `rule` in this one's place
      kEnd,    // the rule ends
    } kind = kEnd;
    Guard guard = Guard::kNone;
    bool ends = false;
    bool in_string = false;  // the inside of a plain JSON string, between two characters
    int32_t first = 0;       // edges or targets
    int32_t count = 0;
    int32_t rule = -1;  // that kItem asks about too
    int32_t next = 0;
    int32_t shape = -1;  // into objects or bounds, for guards
  };

  struct Rule {
    int32_t entry = -1;
    int32_t height = 0;  // frames that its smallest value takes on top of its own; kMostJsonDepth and more: none fits
  };

  /// How often guards let through.
  struct Bounds {
    int64_t least = 0;
    int64_t most = -1;  // -1: any number
    /// Counts beyond it make no difference, so that texts of any length have the same states.
    int64_t Next(int64_t count) const { return most < 0 ? std::min(count + 1, least) : count + 1; }
  };

  struct Object {
    std::vector<int32_t> rules;          // by property
    std::vector<int32_t> next_required;  // from property i on (also for i = size): the first required one, or the size
    int32_t extra_rule = -1;             // of properties with names of their own; -1: there are none
  };

  /// Properties by rising number; kName's lists.
  struct Names {
    int32_t first;
    int32_t count;
  };

  std::vector<Node> nodes;
  std::vector<Edge> edges;
  std::vector<int32_t> targets;
  std::vector<Rule> rules;
  std::vector<Bounds> bounds;
  std::vector<Object> objects;
  std::vector<Names> name_lists;
  std::vector<int32_t> names;
  int32_t root = 0;  // a node

  std::span<const Edge> EdgesOf(const Node& node) const {
    return std::span(edges).subspan(static_cast<size_t>(node.first), static_cast<size_t>(node.count));
  }
  std::span<const int32_t> TargetsOf(const Node& node) const {
    return std::span(targets).subspan(static_cast<size_t>(node.first), static_cast<size_t>(node.count));
  }

  /// Whether a guard lets a frame of this node at this depth pass; then *count is the count behind it.
  bool Passes(const Node& node, Guard guard, int32_t list, int32_t depth, int64_t* count) const;

  /// Whether a frame at this depth may run the rule on top of it.
  bool Fits(int32_t rule, int32_t depth) const {
    return depth + 1 + rules[static_cast<size_t>(rule)].height < kMostJsonDepth;
  }

 private:
  bool MayName(const Object& object, std::span<const int32_t> properties, int32_t depth, int64_t count) const;
};

}  // namespace kvasir
