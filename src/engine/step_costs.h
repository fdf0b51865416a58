// What steps cost, learnt from those that were run.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace kvasir {

/// A step's time is taken for that of its answers alone, which is measured for each number of them, and so much for
/// every token of a prompt beside them. Both follow the machine as moving averages. Not thread-safe.
class StepCosts {
 public:
  /// A step that has run `answers` tokens of texts that go on and `prompt_tokens` of others, in so many milliseconds.
  void Add(int64_t answers, int64_t prompt_tokens, double milliseconds);

  /// Whether the next step ought to run its answers by themselves: what that takes is not known, or from long ago.
  bool WantsAnswersAlone() const;

  /// Tokens of prompts for which a step with `answers` (> 0) takes at most `slower` times what it takes without them;
  /// nothing while too little is known. With a pass of their own, which reads the weights as a single answer does, the
  /// two together take that.
  std::optional<int64_t> PromptTokens(int64_t answers, double slower, bool own_pass = false) const;

 private:
  /// A mean in which what is older counts less.
  struct Average {
    double value = 0;
    int64_t count = 0;  // of measurements

    /// share: of the new one, once there are many.
    void Add(double measured, double share);
  };

  std::optional<double> AnswersAlone(int64_t answers) const;

  std::map<int64_t, Average> answers_ms_;  // by their number
  Average prompt_token_ms_;
  int64_t since_alone_ = 0;  // steps with prompts beside answers since the last without
};

}  // namespace kvasir
