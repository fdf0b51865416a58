// SentencePiece models and rank files: whatever loads must encode and decode without harm.
#include <cstdint>
#include <string_view>

#include "fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvasir::TryTokenizer({reinterpret_cast<const char*>(data), size});
  return 0;
}
