// Names that stand in files and mean a recipe: pre-tokeniser names of GGUF, tokenizer classes of Hugging Face, and rank
// files known by their size. The only place in text/ where such names occur.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace kvasir {

/// How a byte-level vocabulary divides text.
struct ByteLevelRecipe {
  std::vector<std::string_view> patterns;  // each splits the pieces of the one before, in the Ruby dialect
  bool nfc = false;
  bool ignore_merges = false;
  bool add_bos = false;
};

/// The recipe that "tokenizer.ggml.pre" names; null when the name is not known.
const ByteLevelRecipe* FindGgufPreTokenizer(std::string_view name);
/// A name for a division of text that a tokenizer.json describes, the most usual one; empty when there is none.
std::string_view FindGgufPreTokenizerName(const std::vector<std::string>& patterns, bool nfc, bool ignore_merges);
/// The names that are known, sorted, with commas.
std::string GgufPreTokenizerNames();

/// The kinds of model that "tokenizer.ggml.model" names.
enum class GgufVocabulary { kSentencePiece, kByteLevel, kWordPiece, kUnigram, kUnknown };
GgufVocabulary FindGgufVocabulary(std::string_view name);
/// The inverse; empty for kUnknown.
std::string_view GgufVocabularyName(GgufVocabulary kind);

/// What a Hugging Face tokenizer class adds to its files.
struct TokenizerClass {
  enum class Pieces { kPrefixed, kPlainBpe, kRaw };  // of a SentencePiece file, see sentencepiece.h
  bool bos_from_flags = false;          // add_bos_token and add_eos_token replace the file's post-processor
  bool bos_flag_on_conversion = false;  // add_bos_token counts when there is no tokenizer.json
  bool add_bos = false;                 // defaults of the flags
  std::string_view bos, eos, unk, pad;  // defaults of the special tokens
  Pieces pieces = Pieces::kPrefixed;
  const ByteLevelRecipe* byte_level = nullptr;  // of a vocab.json with merges.txt
};
/// By the name in tokenizer_config.json, with or without "Fast"; a neutral one for names that are not known.
const TokenizerClass& FindTokenizerClass(std::string_view name);

/// What a file of ranks does not say about itself.
struct RankFile {
  int64_t ranks;
  const ByteLevelRecipe* recipe;
  std::vector<std::string> special;  // tokens after the ranks, in order
  std::string_view bos;
  std::vector<std::string_view> eos;
};
/// By the number of ranks; an entry with ranks 0 and the usual division for sizes that are not known.
RankFile FindRankFile(int64_t ranks);

/// Texts of tokens that end a turn or a text, whatever the file says.
bool EndsGeneration(std::string_view piece);

/// Whether a model of this name has special tokens that take the white space after them along, which GGUF cannot say.
bool SpecialTokensTakeSpaces(std::string_view model_name);

/// The splits of a recipe and the byte alphabet.
Result<PreTokenizerPtr> MakeRecipePreTokenizer(const ByteLevelRecipe& recipe, bool add_prefix_space);

}  // namespace kvasir
