#include "text/added_token.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/unicode.h"

namespace kvasir {
namespace {

constexpr size_t kMaxContent = 4096;  // bounds the work at each place of the text
constexpr size_t kMaxTokens = 1 << 20;

/// Where the character that ends before `end` begins.
size_t PreviousCharacter(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

/// Adds unless the trie has the key: of equal patterns the first counts.
Status AddIfNew(ByteTrie& trie, std::string_view key, int32_t value) {
  bool present = false;
  trie.ForEachPrefix(key, 0, [&](size_t length, int32_t) { present = present || length == key.size(); });
  return present ? OkStatus() : trie.Add(key, value);
}

}  // namespace

Status AddedTokens::Add(AddedToken token, const PieceTable& vocabulary) {
  if (token.content.empty()) return OkStatus();
  if (token.content.size() > kMaxContent) {
    return InvalidData("an added token has {} bytes; at most {} are allowed", token.content.size(), kMaxContent);
  }
  if (tokens_.size() >= kMaxTokens) return ResourceExhausted("more than {} added tokens", kMaxTokens);
  if (!IsValidUtf8(token.content)) return InvalidData("an added token is not UTF-8");
  if (const auto found = by_content_.find(token.content); found != by_content_.end()) {
    AddedToken& old = tokens_[found->second].token;
    old.special = old.special || token.special;
    return OkStatus();
  }
  TokenId id = vocabulary.Find(token.content);
  if (id < 0) {
    const auto size = static_cast<TokenId>(vocabulary.count());
    id = tokens_.empty() || limit_ - 1 < size ? size : limit_;
    if (id > kMaxTokenId) return InvalidData("an added token would get the id {}", id);
  }
  limit_ = std::max(limit_, id + 1);
  by_content_.emplace(token.content, tokens_.size());
  by_id_[id] = tokens_.size();
  tokens_.push_back({std::move(token), id});
  return OkStatus();
}

Status AddedTokens::Finish(const Normalizer* normalizer) {
  for (const bool special : {true, false}) {  // of two that look alike the special one is found
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const AddedToken& token = tokens_[i].token;
      if (token.special != special) continue;
      const auto index = static_cast<int32_t>(i);
      if (!token.normalized) {
        RETURN_IF_ERROR(AddIfNew(raw_, token.content, index));
        continue;
      }
      any_normalized_special_ = any_normalized_special_ || token.special;
      TextBuffer content(token.content, false, 0);
      if (normalizer != nullptr) RETURN_IF_ERROR(normalizer->Apply(content));
      RETURN_IF_ERROR(AddIfNew(normalized_, content.text(), index));
    }
  }
  return OkStatus();
}

std::optional<TokenId> AddedTokens::Find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  if (found == by_content_.end()) return std::nullopt;
  return tokens_[found->second].id;
}

const AddedToken* AddedTokens::Get(TokenId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second].token;
}

std::vector<std::string_view> AddedTokens::contents() const {
  std::vector<std::string_view> all;
  all.reserve(tokens_.size());
  for (const Entry& entry : tokens_) all.push_back(entry.token.content);
  return all;
}

bool AddedTokens::TouchesWord(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsWord(DecodeUtf8(text, PreviousCharacter(text, begin)).code_point)) return true;
  return end < text.size() && IsWord(DecodeUtf8(text, end).code_point);
}

size_t AddedTokens::SpacesBefore(std::string_view text, size_t begin, size_t floor) {
  while (begin > floor) {
    const size_t previous = PreviousCharacter(text, begin);
    if (!IsWhitespace(DecodeUtf8(text, previous).code_point)) break;
    begin = previous;
  }
  return std::max(begin, floor);
}

size_t AddedTokens::SpacesAfter(std::string_view text, size_t end) {
  while (end < text.size()) {
    const Utf8Unit unit = DecodeUtf8(text, end);
    if (!IsWhitespace(unit.code_point)) break;
    end += unit.length;
  }
  return end;
}

}  // namespace kvasir
