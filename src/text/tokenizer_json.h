// tokenizer.json, the file of Hugging Face's tokenizers library.
#pragma once

#include <string>
#include <string_view>

#include "text/pipeline.h"

namespace kvasir {

/// Bounds on a tokenizer.json; the largest in the field have 35 MB.
inline constexpr size_t kMaxTokenizerJson = 128u << 20;

/// Reads the text of a tokenizer.json. `what` begins messages. No special token is named by it, so `vocab` stays
/// empty but for unk.
Result<TokenizerParts> ParseTokenizerJson(std::string_view text, const std::string& what);

/// Merges from the lines of a merges.txt ("a b", after an optional "#version" line). Errors name the line.
Result<std::vector<BpeMerge>> ParseMergesText(std::string_view text, const PieceTable& pieces, const std::string& what);

/// A {"piece": id} object. Errors: ids that are not integers, out of range or given twice.
Result<PieceTable> ParseVocabObject(const json::value& vocab, const std::string& what);

/// "byte-level BPE", "SentencePiece BPE" or "BPE".
std::string BpeKind(bool byte_level, bool byte_fallback);

}  // namespace kvasir
