// What both tokenizer targets do with a file.
#pragma once

#include <string>
#include <string_view>

#include "base/log.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

namespace kvasir {

/// Loads the bytes and, if that works, encodes a few texts, decodes them whole and in a stream, and compares.
inline void TryTokenizer(std::string_view bytes) {
  SetLogLevel(LogLevel::kOff);
  const auto tokenizer = LoadTokenizerFromBytes(bytes, "fuzz");
  if (!tokenizer.ok()) return;
  const ByteRange literal[] = {{1, 5}, {7, 9}};
  for (const std::string_view text :
       {std::string_view(
            "Hello  world's 123 \n\xff <s>a</s> \u00e9e\u0301 \xe4\xb8\x96 \U0001F469\u200D\U0001F680 \u2581x"),
        std::string_view("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"),
        std::string_view("            x")}) {
    const auto ids = (*tokenizer)->Encode(text, {.literal = literal});
    if (!ids.ok()) continue;
    for (const bool skip : {true, false}) {
      const auto whole = (*tokenizer)->Decode(*ids, {.skip_special = skip});
      if (!whole.ok()) continue;
      if (!IsValidUtf8(*whole)) __builtin_trap();
      StreamDecoder decoder(**tokenizer, {.skip_special = skip});
      std::string streamed;
      for (const TokenId id : *ids) {
        const auto part = decoder.Push(id);
        if (!part.ok() || !IsValidUtf8(*part)) __builtin_trap();
        streamed += *part;
      }
      if (streamed + decoder.Flush() != *whole) __builtin_trap();
    }
  }
}

}  // namespace kvasir
