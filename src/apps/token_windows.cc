#include "apps/token_windows.h"

#include <algorithm>

namespace kvasir::apps {

std::vector<TokenWindow> StridedWindows(int64_t tokens, int64_t context, int64_t stride) {
  std::vector<TokenWindow> windows;
  int64_t scored_to = 1;  // tokens before it are scored, or are the first
  for (int64_t begin = 0; scored_to < tokens; begin += stride) {
    const int64_t end = std::min(begin + context, tokens);
    // With stride = context nothing before the window is seen, so its own first token cannot be scored.
    const int64_t first = std::max<int64_t>(scored_to - begin, 1);
    if (end > begin + first) windows.push_back({begin, end, first});
    scored_to = end;
  }
  return windows;
}

std::vector<TokenWindow> ChunkWindows(int64_t tokens, int64_t context) {
  std::vector<TokenWindow> windows;
  if (context < 4) return windows;
  for (int64_t begin = 0; begin + context <= tokens; begin += context) {
    windows.push_back({begin, begin + context, context / 2 + 1});
  }
  return windows;
}

}  // namespace kvasir::apps
