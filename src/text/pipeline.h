// The one tokenizer behind every file format: added tokens, normaliser, pre-tokeniser, subword model, post-processor,
// decoder, as Hugging Face's tokenizers library divides the work.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "text/added_token.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/subword_model.h"
#include "text/tokenizer.h"

namespace kvasir {

/// The text's own tokens in a post-processing template.
inline constexpr TokenId kTemplateText = -1;

/// What a loader puts together.
struct TokenizerParts {
  SubwordModelPtr model;
  AddedTokens added;              // not finished yet
  NormalizerPtr normalizer;       // may be null
  PreTokenizerPtr pre_tokenizer;  // may be null
  std::vector<TokenId> post_template = {kTemplateText};
  DecoderPlan decoder;
  VocabInfo vocab;  // size is filled in by MakeTokenizer
  std::string chat_template;
  std::string kind;
};

/// Checks the ids of the template and of `vocab` and builds the tokenizer.
Result<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts);

}  // namespace kvasir
