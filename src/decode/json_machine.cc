#include "decode/json_machine.h"

#include <algorithm>
#include <utility>

namespace kvasir {
namespace {

using Node = JsonGrammar::Node;

constexpr size_t kMostReadings = 1024;   // frames of one state
constexpr size_t kMostVisits = 1 << 15;  // nodes passed for one byte

}  // namespace

Status JsonMachine::problem() const {
  if (crowded_) {
    return ResourceExhausted(
        "the text may be read in more than {} ways at once; make the schema's alternatives begin differently",
        kMostReadings);
  }
  if (full()) {
    return ResourceExhausted(
        "the text leads to more than {} states of its schema; ask for a shorter one, or bound fewer lengths",
        most_states_);
  }
  return OkStatus();
}

/// A new set of frames, which Reach fills and End makes a state of (kDead: nothing was reached).
void JsonMachine::Begin() {
  reached_.clear();
  accepts_ = false;
  visits_ = 0;
  if (++round_ == 0) {  // old rounds' numbers come again
    std::ranges::fill(visited_, 0);
    round_ = 1;
  }
}

int32_t JsonMachine::End() {
  work_done_ += static_cast<int64_t>(visits_) + 1;
  if (reached_.size() > kMostReadings) crowded_ = true;
  if (crowded_ || full() || (reached_.empty() && !accepts_)) return kDead;
  std::ranges::sort(reached_);
  return states_.Of(reached_, accepts_);
}

/// Adds the frames that wait for a byte once a frame comes to `node`, and notes whether the text may then end.
void JsonMachine::Reach(int32_t node, int64_t count, int32_t below) {
  work_.push_back(frames_.Of(node, count, below));
  while (!work_.empty()) {
    const int32_t number = work_.back();
    work_.pop_back();
    visited_.resize(std::max(visited_.size(), frames_.size()));
    if (std::exchange(visited_[static_cast<size_t>(number)], round_) == round_) continue;
    if (++visits_ > kMostVisits) crowded_ = true;
    if (!crowded_) Visit(number, frames_[number]);
  }
}

void JsonMachine::Visit(int32_t number, JsonFrame frame) {
  const Node& node = NodeOf(frame);
  const auto go = [&](int32_t to, int64_t count, int32_t below) { work_.push_back(frames_.Of(to, count, below)); };
  const auto entry = [&] { return grammar_->rules[static_cast<size_t>(node.rule)].entry; };
  switch (node.kind) {
    case Node::kBytes:
      if (node.count > 0) reached_.push_back(number);
      if (node.ends) Return(frame);
      break;
    case Node::kSplit:
      for (const int32_t target : grammar_->TargetsOf(node)) go(target, frame.count, frame.below);
      break;
    case Node::kTest:
      if (grammar_->Passes(node, node.guard, 0, frame.depth, &frame.count)) go(node.next, frame.count, frame.below);
      break;
    case Node::kCall:
      if (grammar_->Fits(node.rule, frame.depth)) go(entry(), 0, frames_.Of(node.next, frame.count, frame.below));
      break;
    case Node::kJump:
      if (grammar_->Fits(node.rule, frame.depth - 1)) go(entry(), 0, frame.below);
      break;
    case Node::kEnd: Return(frame); break;
  }
}

void JsonMachine::Return(const JsonFrame& frame) {
  if (frame.below < 0) {
    accepts_ = true;
  } else {
    work_.push_back(frame.below);  // its node is the one behind the call
  }
}

int32_t JsonMachine::Start() {
  Begin();
  Reach(grammar_->root, 0, -1);
  return End();
}

int32_t JsonMachine::Step(int32_t state, uint8_t byte) {
  KnownStep& known = steps_[(static_cast<size_t>(state) * 256 + byte) & (steps_.size() - 1)];
  if (known.state == state && known.byte == byte) return known.next;
  Begin();
  for (const int32_t number : FramesOf(state)) {
    const JsonFrame frame = frames_[number];
    const Node& node = NodeOf(frame);
    const auto edges = grammar_->EdgesOf(node);
    const auto edge = std::ranges::lower_bound(edges, byte, {}, &JsonGrammar::Edge::high);
    ++visits_;
    if (edge == edges.end() || edge->low > byte) continue;
    int64_t count = frame.count;
    if (!grammar_->Passes(node, edge->guard, edge->list, frame.depth, &count)) continue;
    Reach(edge->next, count, frame.below);
  }
  known = {.state = state, .next = End(), .byte = byte};
  return known.next;
}

int32_t JsonMachine::CloseString(int32_t number) {
  const JsonFrame frame = frames_[number];
  const auto edges = grammar_->EdgesOf(NodeOf(frame));
  const auto quote = std::ranges::lower_bound(edges, uint8_t{'"'}, {}, &JsonGrammar::Edge::high);
  Begin();
  Reach(quote->next, frame.count, frame.below);
  return End();
}

int32_t JsonMachine::Import(const JsonMachine& other, std::span<const int32_t> frames, bool accepts) {
  std::vector<int32_t> stack;
  Begin();
  for (const int32_t top : frames) {
    stack.clear();
    for (int32_t at = top; at >= 0; at = other.frames_[at].below) stack.push_back(at);
    int32_t below = -1;
    for (; !stack.empty(); stack.pop_back()) {
      const JsonFrame& frame = other.frames_[stack.back()];
      below = frames_.Of(frame.node, frame.count, below);
    }
    reached_.push_back(below);
  }
  accepts_ = accepts;
  return End();
}

}  // namespace kvasir
