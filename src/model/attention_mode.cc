#include "model/attention_mode.h"

#include <algorithm>

namespace kvasir {

LayerPattern PatternOf(const AttentionMode& mode, int64_t layer, int64_t window) {
  AttentionPattern pattern = mode.pattern;
  if (pattern == AttentionPattern::kAlternating) {
    pattern = layer % 2 == 0 ? AttentionPattern::kLocal : AttentionPattern::kAtrous;
  }
  switch (pattern) {
    case AttentionPattern::kAll:
    case AttentionPattern::kAlternating: break;
    case AttentionPattern::kLocal: return {.window = window > 0 ? std::min(window, mode.k + 1) : mode.k + 1};
    case AttentionPattern::kAtrous: return {.window = window, .stride = mode.k};
    case AttentionPattern::kSparse: return {.window = window, .stride = mode.k, .local = mode.k};
  }
  return {.window = window};
}

}  // namespace kvasir
