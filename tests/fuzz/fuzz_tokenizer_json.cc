// tokenizer.json: whatever loads must encode and decode without harm.
#include <cstdint>
#include <string_view>

#include "fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Only JSON; the other formats have a target of their own.
  std::string text = "{";
  text.append(reinterpret_cast<const char*>(data), size);
  kvasir::TryTokenizer(text);
  return 0;
}
