#include "decode/token_trie.h"

#include <algorithm>

#include "decode/json_string_scan.h"

namespace kvasir {
namespace {

constexpr size_t kLongestToken = 65'535;  // Node::depth
constexpr size_t kMostBytes = 256u << 20;

}  // namespace

Result<std::shared_ptr<const TokenTrie>> TokenTrie::Make(std::vector<std::string> bytes) {
  std::shared_ptr<TokenTrie> trie(new TokenTrie());
  size_t total = 0;
  std::vector<TokenId> sorted;
  for (size_t id = 0; id < bytes.size(); ++id) {
    if (bytes[id].size() > kLongestToken) {
      return Unsupported("token {} has {} bytes; constraints are for tokens of at most {}", id, bytes[id].size(),
                         kLongestToken);
    }
    total += bytes[id].size();
    if (total > kMostBytes) return ResourceExhausted("the vocabulary's tokens have more than {} bytes", kMostBytes);
    if (!bytes[id].empty()) sorted.push_back(static_cast<TokenId>(id));
    trie->longest_ = std::max(trie->longest_, bytes[id].size());
  }
  trie->bytes_ = std::move(bytes);
  std::ranges::sort(sorted, [&](TokenId a, TokenId b) {
    const int order = trie->Bytes(a).compare(trie->Bytes(b));
    return order != 0 ? order < 0 : a < b;
  });
  trie->AddNodes(sorted);
  trie->WalkString();
  return std::shared_ptr<const TokenTrie>(std::move(trie));
}

void TokenTrie::AddNodes(std::span<const TokenId> sorted) {
  std::vector<int32_t> path;  // the nodes of the token before
  std::string_view before;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      nodes_[static_cast<size_t>(path.back())].after = static_cast<int32_t>(nodes_.size());
    }
  };
  for (const TokenId id : sorted) {
    const std::string_view token = Bytes(id);
    const auto common = static_cast<size_t>(std::ranges::mismatch(before, token).in2 - token.begin());
    close(common);
    for (size_t i = common; i < token.size(); ++i) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({.after = 0,
                        .first_token = static_cast<int32_t>(tokens_.size()),
                        .depth = static_cast<uint16_t>(i + 1),
                        .byte = static_cast<uint8_t>(token[i])});
    }
    tokens_.push_back(id);
    before = token;
  }
  close(0);
}

void TokenTrie::WalkString() {
  string_mask_.assign(mask_words(), 0);
  struct Place {
    JsonStringState state;
    int32_t characters;
  };
  std::vector<Place> path(longest_ + 1);
  path[0] = {kInString, 0};
  for (int32_t i = 0; i < static_cast<int32_t>(nodes_.size());) {
    const Node& node = nodes_[static_cast<size_t>(i)];
    const Place& from = path[node.depth - 1u];
    const JsonStringState next = NextInString(from.state, node.byte);
    if (next == kStringClosed) string_ends_.push_back({i, from.characters});
    if (next == kStringClosed || next == kNotAString) {
      i = node.after;
      continue;
    }
    path[node.depth] = {next, from.characters + (from.state == kInString ? 1 : 0)};
    for (const TokenId id : TokensAt(i)) {
      string_mask_[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
      string_tokens_.push_back({id, path[node.depth].characters});
    }
    ++i;
  }
  std::ranges::stable_sort(string_tokens_, std::greater(), &StringToken::characters);
}

}  // namespace kvasir
