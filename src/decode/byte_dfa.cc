#include "decode/byte_dfa.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "decode/json_string_scan.h"

namespace kvasir {
namespace {

Status TooLarge() {
  return InvalidArgument("its automaton has more than {} states; use a simpler one or smaller bounds", kMostDfaStates);
}

/// What is reached from `states` without a byte, sorted.
void Close(const ByteNfa& nfa, std::vector<int32_t>& states, std::vector<bool>& seen) {
  for (const int32_t state : states) seen[static_cast<size_t>(state)] = true;
  for (size_t i = 0; i < states.size(); ++i) {
    for (const int32_t next : nfa.states[static_cast<size_t>(states[i])].empty) {
      if (seen[static_cast<size_t>(next)]) continue;
      seen[static_cast<size_t>(next)] = true;
      states.push_back(next);
    }
  }
  for (const int32_t state : states) seen[static_cast<size_t>(state)] = false;
  std::ranges::sort(states);
}

/// Adds a range behind the others, joined to the last one where they touch.
void Append(std::vector<ByteEdge>& edges, uint8_t low, uint8_t high, int32_t to) {
  if (!edges.empty() && edges.back().to == to && edges.back().high + 1 == low) {
    edges.back().high = high;
  } else {
    edges.push_back({low, high, to});
  }
}

/// The states of an automaton that is made while it is walked, by what they stand for.
template <typename Key>
class StateNumbers {
 public:
  explicit StateNumbers(ByteDfa& dfa) : dfa_(dfa) {}
  int32_t Of(const Key& key) {
    const auto [at, added] = numbers_.try_emplace(key, static_cast<int32_t>(keys_.size()));
    if (added) {
      keys_.push_back(key);
      dfa_.states.emplace_back();
    }
    return at->second;
  }
  size_t size() const { return keys_.size(); }
  Key at(size_t i) const { return keys_[i]; }

 private:
  ByteDfa& dfa_;
  std::map<Key, int32_t> numbers_;
  std::vector<Key> keys_;
};

/// Walks `dfa` together with something else: next(key, byte) gives that one's part of the next state or nothing,
/// accepts(key) its say. Byte by byte, since it may tell bytes apart where `dfa` does not.
template <typename Other, typename Next, typename Accepts>
Result<ByteDfa> Product(const ByteDfa& dfa, Other start, WorkBudget& budget, Next next, Accepts accepts) {
  ByteDfa product;
  StateNumbers<std::pair<int32_t, Other>> numbers(product);
  numbers.Of({0, start});
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers.size() > kMostDfaStates) return TooLarge();
    const auto [state, other] = numbers.at(i);
    const ByteDfa::State& from = dfa.states[static_cast<size_t>(state)];
    product.states[i].accepts = from.accepts && accepts(other);
    std::vector<ByteEdge> edges;
    for (const ByteEdge& edge : from.edges) {
      RETURN_IF_ERROR(budget.Spend(edge.high - edge.low + 1));
      for (int byte = edge.low; byte <= edge.high; ++byte) {
        const std::optional<Other> reached = next(other, static_cast<uint8_t>(byte));
        if (!reached) continue;
        Append(edges, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), numbers.Of({edge.to, *reached}));
      }
    }
    product.states[i].edges = std::move(edges);
  }
  RETURN_IF_ERROR(Trim(product));
  return product;
}

}  // namespace

Status WorkBudget::Spend(int64_t units) {
  left_ -= units;
  if (left_ >= 0) return OkStatus();
  left_ = 0;
  return InvalidArgument("the schema is too much work to compile; make its patterns, ranges and lists smaller");
}

int32_t ByteNfa::AddState() {
  if (states.size() >= kMostNfaStates) {
    full = true;
    return 0;
  }
  states.emplace_back();
  return static_cast<int32_t>(states.size()) - 1;
}

Result<ByteDfa> Determinize(const ByteNfa& nfa, ByteNfa::Fragment fragment, WorkBudget& budget) {
  if (nfa.full)
    return InvalidArgument("it has more than {} parts once its repetitions are written out", kMostNfaStates);
  ByteDfa dfa;
  StateNumbers<std::vector<int32_t>> numbers(dfa);
  std::vector<bool> seen(nfa.states.size());
  std::vector<int32_t> start{fragment.in};
  Close(nfa, start, seen);
  numbers.Of(start);
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers.size() > kMostDfaStates) return TooLarge();
    const std::vector<int32_t> members = numbers.at(i);
    dfa.states[i].accepts = std::ranges::binary_search(members, fragment.out);
    std::vector<ByteEdge> all;
    std::vector<int> cuts;  // where a range begins, or the one before has ended
    for (const int32_t member : members) {
      for (const ByteEdge& edge : nfa.states[static_cast<size_t>(member)].edges) {
        all.push_back(edge);
        cuts.push_back(edge.low);
        cuts.push_back(edge.high + 1);
      }
    }
    std::ranges::sort(cuts);
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    RETURN_IF_ERROR(budget.Spend(static_cast<int64_t>(members.size() + all.size() * (cuts.size() + 1))));
    std::vector<ByteEdge> edges;
    for (size_t cut = 0; cut + 1 < cuts.size(); ++cut) {
      std::vector<int32_t> targets;
      for (const ByteEdge& edge : all) {
        if (edge.low <= cuts[cut] && cuts[cut] <= edge.high) targets.push_back(edge.to);
      }
      if (targets.empty()) continue;
      std::ranges::sort(targets);
      targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
      Close(nfa, targets, seen);
      RETURN_IF_ERROR(budget.Spend(static_cast<int64_t>(targets.size())));
      Append(edges, static_cast<uint8_t>(cuts[cut]), static_cast<uint8_t>(cuts[cut + 1] - 1), numbers.Of(targets));
    }
    dfa.states[i].edges = std::move(edges);
  }
  RETURN_IF_ERROR(Trim(dfa));
  return dfa;
}

Status Trim(ByteDfa& dfa) {
  std::vector<std::vector<int32_t>> before(dfa.states.size());
  std::vector<int32_t> queue;
  std::vector<bool> useful(dfa.states.size());
  for (size_t i = 0; i < dfa.states.size(); ++i) {
    for (const ByteEdge& edge : dfa.states[i].edges) {
      before[static_cast<size_t>(edge.to)].push_back(static_cast<int32_t>(i));
    }
    if (!dfa.states[i].accepts) continue;
    useful[i] = true;
    queue.push_back(static_cast<int32_t>(i));
  }
  for (size_t head = 0; head < queue.size(); ++head) {
    for (const int32_t state : before[static_cast<size_t>(queue[head])]) {
      if (useful[static_cast<size_t>(state)]) continue;
      useful[static_cast<size_t>(state)] = true;
      queue.push_back(state);
    }
  }
  if (dfa.states.empty() || !useful[0]) return InvalidArgument("no text satisfies it");
  std::vector<int32_t> number(dfa.states.size(), -1);
  ByteDfa kept;
  for (size_t i = 0; i < dfa.states.size(); ++i) {
    if (!useful[i]) continue;
    number[i] = static_cast<int32_t>(kept.states.size());
    kept.states.push_back(std::move(dfa.states[i]));
  }
  for (ByteDfa::State& state : kept.states) {
    std::erase_if(state.edges, [&](const ByteEdge& edge) { return number[static_cast<size_t>(edge.to)] < 0; });
    for (ByteEdge& edge : state.edges) edge.to = number[static_cast<size_t>(edge.to)];
  }
  dfa = std::move(kept);
  return OkStatus();
}

Result<ByteDfa> RestrictLength(const ByteDfa& dfa, int64_t min, int64_t max, WorkBudget& budget) {
  using Place = std::pair<JsonStringState, int64_t>;  // the number of characters, no longer counted once it is enough
  const auto next = [&](Place place, uint8_t byte) -> std::optional<Place> {
    const JsonStringState state = NextInString(place.first, byte);
    if (state < 0) return std::nullopt;
    int64_t count = place.second;
    if (place.first == kInString) count = max < 0 ? std::min(count + 1, min) : count + 1;
    if (max >= 0 && count > max) return std::nullopt;
    return Place{state, count};
  };
  const auto accepts = [&](Place place) { return place.first == kInString && place.second >= min; };
  return Product(dfa, Place{kInString, 0}, budget, next, accepts);
}

Result<ByteDfa> RestrictToMultiples(const ByteDfa& dfa, int64_t k, WorkBudget& budget) {
  const auto next = [&](int64_t rest, uint8_t byte) -> std::optional<int64_t> {
    return byte >= '0' && byte <= '9' ? (rest * 10 + (byte - '0')) % k : rest;
  };
  return Product(dfa, int64_t{0}, budget, next, [](int64_t rest) { return rest == 0; });
}

}  // namespace kvasir
