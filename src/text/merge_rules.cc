#include "text/merge_rules.h"

#include <algorithm>

namespace kvasir {
namespace {

struct Candidate {
  BpeMerge merge;
  uint32_t left_length;
  uint32_t right_length;
};

/// Calls found(left, right, characters left, characters right) for each division of each piece, ordered by the parts'
/// ids within a piece. `step` says whether a byte may begin the right part.
template <typename Boundary, typename Found>
Status ForEachDivision(const PieceTable& pieces, Boundary boundary, Found found) {
  uint64_t work = 0;
  for (TokenId id = 0; id < pieces.limit(); ++id) work += pieces.Piece(id).size() * pieces.Piece(id).size();
  if (work > (uint64_t{1} << 32)) return ResourceExhausted("the vocabulary's pieces are too long to find merges");
  std::vector<Candidate> local;
  for (TokenId id = 0; id < pieces.limit(); ++id) {
    const std::string_view piece = pieces.Piece(id);
    if (piece.empty() || pieces.Find(piece) != id) continue;
    uint32_t total = 0;
    for (const char c : piece) total += boundary(c);
    local.clear();
    uint32_t left = 1;
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      if (!boundary(piece[cut])) continue;
      const TokenId first = pieces.Find(piece.substr(0, cut));
      if (first >= 0) {
        const TokenId second = pieces.Find(piece.substr(cut));
        if (second >= 0) local.push_back({{first, second, id}, left, total - left});
      }
      ++left;
    }
    std::sort(local.begin(), local.end(), [](const Candidate& a, const Candidate& b) {
      return a.merge.left != b.merge.left ? a.merge.left < b.merge.left : a.merge.right < b.merge.right;
    });
    for (const Candidate& candidate : local) found(candidate);
  }
  return OkStatus();
}

std::vector<BpeMerge> Merges(const std::vector<Candidate>& candidates) {
  std::vector<BpeMerge> merges;
  merges.reserve(candidates.size());
  for (const Candidate& candidate : candidates) merges.push_back(candidate.merge);
  return merges;
}

}  // namespace

Result<std::vector<BpeMerge>> MergesFromScores(const PieceTable& pieces, const std::vector<float>& scores) {
  if (scores.size() < static_cast<size_t>(pieces.limit())) {
    return InvalidData("{} pieces but {} scores", pieces.limit(), scores.size());
  }
  std::vector<Candidate> all;
  RETURN_IF_ERROR(ForEachDivision(
      pieces, [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; },
      [&](const Candidate& candidate) { all.push_back(candidate); }));
  std::stable_sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
    const float x = scores[static_cast<size_t>(a.merge.result)];
    const float y = scores[static_cast<size_t>(b.merge.result)];
    if (x != y) return x > y;
    if (a.left_length != b.left_length) return a.left_length > b.left_length;
    return a.right_length > b.right_length;
  });
  return Merges(all);
}

Result<std::vector<BpeMerge>> MergesFromRanks(const PieceTable& raw) {
  std::vector<Candidate> all;
  RETURN_IF_ERROR(
      ForEachDivision(raw, [](char) { return true; }, [&](const Candidate& candidate) { all.push_back(candidate); }));
  return Merges(all);  // pieces came in the order of their ranks
}

}  // namespace kvasir
