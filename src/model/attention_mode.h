// How attention is computed, and what it leaves out beyond what the model itself does (A1, A2, A6–A8).
#pragma once

#include <cstdint>

namespace kvasir {

/// Which keys are seen, by the distance d from query back to key and the pattern's k.
enum class AttentionPattern : uint8_t {
  kAll,
  kLocal,        // d <= k (A7); costs O(k·T)
  kAtrous,       // d = 0, k, 2k, … (A6); costs O(T²/k)
  kSparse,       // d <= k or a multiple of k (A8, strided: Child 2019, arXiv:1904.10509)
  kAlternating,  // kLocal in even layers, kAtrous in odd ones (A8)
};

struct AttentionMode {
  bool plain = false;  // materialised scores (A1); else tiles (A2)
  AttentionPattern pattern = AttentionPattern::kAll;
  int64_t k = 0;  // 1 … kMaxPatternK with a pattern

  friend bool operator==(const AttentionMode&, const AttentionMode&) = default;
};

inline constexpr int64_t kMaxPatternK = int64_t{1} << 30;

/// Fields of AttentionArgs.
struct LayerPattern {
  int64_t window = 0;
  int64_t stride = 0;
  int64_t local = 0;
};

/// What layer number `layer`, whose own window is `window` (0: none), sees: keys must satisfy both.
LayerPattern PatternOf(const AttentionMode& mode, int64_t layer, int64_t window);

}  // namespace kvasir
