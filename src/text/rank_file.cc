#include "text/rank_file.h"

#include <charconv>

#include "text/byte_alphabet.h"
#include "text/merge_rules.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

/// Takes the next line off `text`, without its end.
std::string_view TakeLine(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

bool ParseLine(std::string_view line, std::string* token, int64_t* rank) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return false;
  const char* end = line.data() + line.size();
  const auto [rest, error] = std::from_chars(line.data() + space + 1, end, *rank);
  if (error != std::errc() || rest != end) return false;
  token->clear();
  return DecodeBase64(line.substr(0, space), token) && !token->empty();
}

}  // namespace

bool LooksLikeRankFile(std::string_view bytes) {
  std::string token;
  int64_t rank;
  return ParseLine(TakeLine(bytes), &token, &rank);
}

Result<TokenizerParts> ParseRankFile(std::string_view bytes, bool use_known_specials) {
  PieceTable raw;
  PieceTable written;  // in the byte alphabet
  size_t number = 0;
  std::string token;
  while (!bytes.empty()) {
    const std::string_view line = TakeLine(bytes);
    ++number;
    if (line.empty()) continue;
    int64_t rank;
    if (!ParseLine(line, &token, &rank)) {
      return InvalidData("line {}: \"{}\" is not \"base64 rank\"", number, Excerpt(line));
    }
    if (raw.Find(token) >= 0) return InvalidData("line {}: the token stands twice in the file", number);
    const Status added = raw.Add(token, rank);
    if (!added.ok()) return added.WithContext(fmt::format("line {}", number));
    RETURN_IF_ERROR(written.Add(ToByteAlphabet(token), rank));
  }
  TokenizerParts parts;
  ASSIGN_OR_RETURN(const std::vector<BpeMerge> merges, MergesFromRanks(raw));
  const RankFile known = FindRankFile(static_cast<int64_t>(raw.count()));
  BpeOptions options;
  options.ignore_merges = true;
  options.byte_alphabet = true;
  ASSIGN_OR_RETURN(parts.model, MakeBpe(std::move(written), merges, std::move(options)));
  ASSIGN_OR_RETURN(parts.pre_tokenizer, MakeRecipePreTokenizer(*known.recipe, false));
  if (known.recipe->nfc) parts.normalizer = MakeNormalForm(NormalForm::kNfc);
  parts.decoder.ByteLevel();
  parts.kind = "tiktoken";
  if (!use_known_specials) return parts;
  for (const std::string& special : known.special) {
    AddedToken added;
    added.content = special;
    added.normalized = false;
    added.special = true;
    RETURN_IF_ERROR(parts.added.Add(std::move(added), parts.model->pieces()));
  }
  parts.vocab.bos = parts.added.Find(known.bos);
  for (const std::string_view end : known.eos) {
    if (const auto id = parts.added.Find(end)) parts.vocab.eos.push_back(*id);
  }
  if (known.recipe->add_bos && parts.vocab.bos) parts.post_template = {*parts.vocab.bos, kTemplateText};
  return parts;
}

}  // namespace kvasir
