// How a text longer than the context is divided for perplexity.
#pragma once

#include <cstdint>
#include <vector>

namespace kvasir::apps {

enum class WindowMode {
  kStrided,
  kChunks,
  kStream,  // one window over the whole text, read as a stream
};

/// Tokens [begin, end) of the text are run together; those from begin + first_scored on are scored.
struct TokenWindow {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t first_scored = 1;  // relative to begin; the first token of a window is never scored

  bool operator==(const TokenWindow&) const = default;
};

/// Hugging Face's guide (https://huggingface.co/docs/transformers/perplexity): windows of `context` tokens begin every
/// `stride` tokens; each scores what the ones before it did not. Every token but the first is scored once; a last
/// window that would add nothing is left out. REQUIRES: 1 <= stride <= context.
std::vector<TokenWindow> StridedWindows(int64_t tokens, int64_t context, int64_t stride);

/// llama.cpp's perplexity: whole windows side by side, the tokens of the second half but its first are scored.
std::vector<TokenWindow> ChunkWindows(int64_t tokens, int64_t context);

}  // namespace kvasir::apps
