// Runs a JSON grammar byte by byte.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "decode/json_grammar.h"
#include "decode/json_stacks.h"

namespace kvasir {

/// A text may often be read in several ways, so that a state is a set of stacks. States are numbers; they are made when
/// they are reached, and what a byte leads to is remembered. Not thread-safe.
class JsonMachine {
 public:
  static constexpr int32_t kDead = -1;

  /// At most `most_states` are made; `steps` are remembered, a power of two. REQUIRES: the grammar outlives it.
  JsonMachine(const JsonGrammar& grammar, size_t most_states, size_t steps)
      : grammar_(&grammar), most_states_(most_states), steps_(steps) {}

  /// Before the first byte.
  int32_t Start();
  /// After a byte; kDead when no text goes on so, or the limits are met (then `problem` says so from now on).
  int32_t Step(int32_t state, uint8_t byte);
  /// After the quote that closes the plain string in which a frame stands.
  int32_t CloseString(int32_t frame);
  /// The state of another machine of the same grammar, or of some of its frames.
  int32_t Import(const JsonMachine& other, std::span<const int32_t> frames, bool accepts);

  std::span<const int32_t> FramesOf(int32_t state) const { return states_.FramesOf(static_cast<size_t>(state)); }
  bool Accepts(int32_t state) const { return states_.Accepts(static_cast<size_t>(state)); }
  const JsonFrame& frame(int32_t number) const { return frames_[number]; }
  const JsonGrammar::Node& NodeOf(const JsonFrame& frame) const {
    return grammar_->nodes[static_cast<size_t>(frame.node)];
  }

  size_t size() const { return states_.size(); }
  /// Nodes passed so far, a measure of time.
  int64_t work() const { return work_done_; }
  /// ResourceExhausted once a limit has been met.
  Status problem() const;

 private:
  /// What a byte leads to; a slot is overwritten by whatever falls on it.
  struct KnownStep {
    int32_t state = -1;
    int32_t next = kDead;
    uint8_t byte = 0;
  };

  void Begin();
  void Reach(int32_t node, int64_t count, int32_t below);
  void Visit(int32_t number, JsonFrame frame);
  void Return(const JsonFrame& frame);
  int32_t End();
  bool full() const {
    return states_.size() >= most_states_ || frames_.size() >= 4 * most_states_ ||
           states_.members() >= 16 * most_states_;
  }

  const JsonGrammar* grammar_;
  size_t most_states_;
  JsonFrames frames_;
  JsonStates states_;
  std::vector<KnownStep> steps_;
  bool crowded_ = false;
  int64_t work_done_ = 0;

  // The set of frames in the making.
  std::vector<int32_t> reached_;
  bool accepts_ = false;
  std::vector<int32_t> work_;
  std::vector<uint32_t> visited_;  // by frame: the round in which it was
  uint32_t round_ = 0;
  size_t visits_ = 0;
};

}  // namespace kvasir
