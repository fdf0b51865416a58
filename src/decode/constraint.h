// What a text may still become: constraints on the tokens of an answer.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"
#include "text/vocab.h"

namespace kvasir {

/// Says which tokens may come next. It knows no model. States are numbers that stay valid as long as the constraint
/// and never change, so that forks, rollback and preemption cost nothing: whoever has a state may go on from it, in any
/// order. Not thread-safe; several samples that one thread runs may share it.
class Constraint {
 public:
  using State = int32_t;

  virtual ~Constraint() = default;

  /// Before the first token.
  virtual State Start() const = 0;

  /// After a token that Mask(state) allows. Internal for any other token; ResourceExhausted when the text has led to
  /// more states than the constraint keeps.
  virtual Result<State> Next(State state, TokenId token) = 0;

  /// Which tokens may come: bit i % 64 of word i / 64 for token i; tokens beyond the words may not. Ends of text are
  /// not among them (MayEnd says so). Valid until the next call. InvalidArgument when the text may not end here and the
  /// vocabulary has no token that goes on; ResourceExhausted when finding out takes too much time or memory.
  virtual Result<std::span<const uint64_t>> Mask(State state) = 0;

  /// Whether the text may end here.
  virtual bool MayEnd(State state) const = 0;

  /// Whether it has to: no token may follow.
  virtual bool MustEnd(State state) const = 0;

  /// What a token adds to the text, as the constraint has read it; empty for tokens that it never allows.
  virtual std::string_view Bytes(TokenId token) const = 0;
};

}  // namespace kvasir
