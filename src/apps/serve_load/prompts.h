// Random prompts of given lengths.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "apps/serve_load/answer_reader.h"
#include "apps/serve_load/outcome.h"

namespace kvasir::apps {

/// Common English words, each a token of its own behind a space in most vocabularies.
std::span<const std::string_view> CommonWords();

/// What prompts are made of.
struct PromptStuff {
  uint64_t seed = 0;
  int64_t shared_prefix = 0;       // tokens that all of them begin with
  bool ids = true;                 // of token ids; else of words
  int32_t vocabulary = 2048;       // ids are from a quarter of it on, where no tokenizer has special ones
  int64_t overhead = 0;            // tokens that the server adds to a text
  std::vector<std::string> words;  // each of one token
};

/// The token ids of a request's prompt, whose number is request.prompt_tokens. REQUIRES: vocabulary >= 2.
std::vector<int32_t> PromptIds(const PromptStuff& stuff, const LoadRequest& request);
/// So many words that the prompt has request.prompt_tokens tokens where every word is one. REQUIRES: there are words.
std::string PromptText(const PromptStuff& stuff, const LoadRequest& request);

/// How a server is asked.
struct AskSettings {
  ApiEndpoint endpoint = ApiEndpoint::kCompletions;
  std::string model;
  bool ignore_eos = true;
  double temperature = 0;
  std::string extra;  // a JSON object whose members are added, or replace those there are; "" for none
};

/// The JSON body of a request. InvalidArgument where `extra` is no JSON object.
Result<std::string> RequestBody(const AskSettings& ask, const PromptStuff& stuff, const LoadRequest& request);

}  // namespace kvasir::apps
