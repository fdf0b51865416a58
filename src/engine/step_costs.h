// What steps cost, learnt from those that were run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace kvasir {

/// The last values of something that is measured again and again, and shares of them by weight.
class RecentValues {
 public:
  explicit RecentValues(size_t most) : most_(most) {}

  void Add(double value, int64_t weight = 1);
  size_t size() const { return values_.size(); }

  /// The least value that, with those below it, makes up the share `q` of the weight of the newest `newest` ones.
  /// REQUIRES: size() > 0.
  double Quantile(double q, size_t newest) const;

 private:
  struct Value {
    double value;
    int64_t weight;
  };
  /// The value that was added so many others ago.
  const Value& Back(size_t ago) const { return values_[(next_ + values_.size() - 1 - ago) % values_.size()]; }

  size_t most_;
  size_t next_ = 0;  // where the next one goes
  std::vector<Value> values_;
};

/// A step's time is taken for that of its answers alone, which is measured for each number of them, and so much for
/// every token of a prompt beside them. What is typical is a median: one slow step, which says more of the machine than
/// of the work, moves it little, and the budget of a whole prompt rests on it. What is rare is compared with what is
/// rare: where prompts make the slowest steps slower still, they get less. Not thread-safe.
class StepCosts {
 public:
  StepCosts();

  /// A step that has run `answers` tokens of texts that go on and `prompt_tokens` of others, in so many milliseconds.
  void Add(int64_t answers, int64_t prompt_tokens, double milliseconds);

  /// Whether the next step ought to run its answers by themselves: what that takes is not known, or from long ago.
  bool WantsAnswersAlone() const;

  /// Tokens of prompts for which a step with `answers` (> 0) takes at most `slower` times what it takes without them;
  /// nothing while too little is known. With a pass of their own, which reads the weights as a single answer does, the
  /// two together take that.
  std::optional<int64_t> PromptTokens(int64_t answers, double slower, bool own_pass = false) const;

 private:
  const RecentValues* AnswersAlone(int64_t answers) const;

  std::map<int64_t, RecentValues> answers_ms_;  // by their number
  RecentValues token_ms_;                       // of prompts beside answers, weighted by tokens
  RecentValues pieces_;                         // and how many tokens there were
  RecentValues lone_token_ms_;                  // of prompts by themselves
  int64_t since_alone_ = 0;                     // steps with prompts beside answers since the last without
};

}  // namespace kvasir
