// Merges for vocabularies that store none: every way to put a piece together from two others.
#pragma once

#include <vector>

#include "base/status.h"
#include "text/subword_model.h"

namespace kvasir {

/// Merges by falling score of the result, as Hugging Face converts SentencePiece BPE vocabularies.
/// scores: by id; ids without a piece are skipped. Errors: strings so long that the search would not end.
Result<std::vector<BpeMerge>> MergesFromScores(const PieceTable& pieces, const std::vector<float>& scores);

/// Merges by rising rank of the result, as tiktoken means its ranks. raw: byte strings by rank.
Result<std::vector<BpeMerge>> MergesFromRanks(const PieceTable& raw);

}  // namespace kvasir
