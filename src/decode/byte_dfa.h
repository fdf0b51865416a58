// Small automata over bytes: made from fragments, brought into deterministic form, cut down.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace kvasir {

/// Bounds the work that one schema may cause, whatever its parts do.
class WorkBudget {
 public:
  explicit WorkBudget(int64_t units) : left_(units) {}
  /// InvalidArgument when there is not so much left.
  Status Spend(int64_t units);

 private:
  int64_t left_;
};

/// States of a deterministic automaton at most.
inline constexpr size_t kMostDfaStates = 16'384;
/// And of one that is not.
inline constexpr size_t kMostNfaStates = 65'536;

struct ByteEdge {
  uint8_t low;
  uint8_t high;  // included
  int32_t to;
};

/// A nondeterministic automaton; made of fragments, each with one way in and one way out.
struct ByteNfa {
  struct State {
    std::vector<ByteEdge> edges;
    std::vector<int32_t> empty;  // reached without a byte
  };
  struct Fragment {
    int32_t in;
    int32_t out;
  };
  std::vector<State> states;

  /// Beyond kMostNfaStates nothing more is added and `full` says so; what was made is then of no use.
  int32_t AddState();
  void AddEdge(int32_t from, uint8_t low, uint8_t high, int32_t to) {
    states[static_cast<size_t>(from)].edges.push_back({low, high, to});
  }
  void AddEmpty(int32_t from, int32_t to) { states[static_cast<size_t>(from)].empty.push_back(to); }
  bool full = false;
};

struct ByteDfa {
  struct State {
    std::vector<ByteEdge> edges;  // sorted, apart
    bool accepts = false;
  };
  std::vector<State> states;  // the first is where it begins
};

/// The deterministic automaton of a fragment, without states from which nothing can be accepted. InvalidArgument: it is
/// too large, or accepts nothing.
Result<ByteDfa> Determinize(const ByteNfa& nfa, ByteNfa::Fragment fragment, WorkBudget& budget);

/// Removes states from which nothing can be accepted; InvalidArgument when nothing is left.
Status Trim(ByteDfa& dfa);

/// Those texts of `dfa`, the insides of JSON strings, that have min to max characters (max < 0: any number).
Result<ByteDfa> RestrictLength(const ByteDfa& dfa, int64_t min, int64_t max, WorkBudget& budget);

/// Those texts of `dfa`, decimal integers, that are multiples of k, 1 to 4096.
Result<ByteDfa> RestrictToMultiples(const ByteDfa& dfa, int64_t k, WorkBudget& budget);

}  // namespace kvasir
