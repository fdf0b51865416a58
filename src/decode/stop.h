// When a sequence ends: EOS ids, stop strings, maximum length.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/vocab.h"

namespace kvasir {

enum class FinishReason { kNone, kEos, kStopString, kLength, kCancelled, kError };

/// "stop" for kEos and kStopString, "length", "cancelled", "error", "" for kNone.
std::string_view FinishReasonName(FinishReason reason);

/// Watches streamed text for stop strings and holds back what might be the beginning of one. Not thread-safe.
/// The string that ends first in the text stops it; of several ending there the longest, so nothing of it is shown.
class StopStrings {
 public:
  /// Empty strings never match.
  explicit StopStrings(const std::vector<std::string>& strings);

  struct Output {
    std::string text;      // safe to show now
    bool stopped = false;  // a stop string was found; `text` ends just before it
  };
  /// Time is linear in the text for any strings and any number of them. After a stop nothing more comes out.
  Output Push(std::string_view text);
  /// The text held back, when generation ends without a stop string. Watching begins anew.
  std::string Flush();

 private:
  // An Aho-Corasick automaton (Aho & Corasick 1975): a node is a prefix of some stop string.
  struct Node {
    std::vector<std::pair<char, int32_t>> children;
    int32_t failure = 0;    // the longest proper suffix that is a node too
    size_t depth = 0;       // length of the prefix
    size_t match_size = 0;  // the longest stop string that ends here, 0: none
  };
  int32_t Child(int32_t node, char c) const;  // -1: none

  std::vector<Node> nodes_;
  int32_t state_ = 0;
  bool stopped_ = false;
  std::string held_;  // recent text; from shown_ on it is a prefix of a stop string
  size_t shown_ = 0;
};

}  // namespace kvasir
