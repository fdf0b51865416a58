#include "decode/json_constraint.h"

#include <algorithm>
#include <limits>
#include <list>
#include <unordered_map>
#include <utility>
#include <vector>

#include "decode/json_machine.h"

namespace kvasir {
namespace {

constexpr int32_t kDead = JsonMachine::kDead;
constexpr size_t kMostTextStates = size_t{1} << 20;
constexpr size_t kTextSteps = size_t{1} << 10;
constexpr size_t kMostMaskStates = size_t{1} << 18;  // that one mask may lead to
constexpr size_t kMaskStatesKept = size_t{1} << 16;  // from mask to mask
constexpr size_t kMaskSteps = size_t{1} << 16;
constexpr int64_t kMostMaskWork = int64_t{1} << 23;  // about half a second
constexpr size_t kMasksKept = 64;

/// Two machines: one has the states that texts have come to, which stay; what masks look ahead to is in the other one,
/// which begins anew when it has grown.
class JsonConstraint final : public Constraint {
 public:
  JsonConstraint(std::shared_ptr<const JsonGrammar> grammar, std::shared_ptr<const TokenTrie> tokens)
      : grammar_(std::move(grammar)),
        tokens_(std::move(tokens)),
        text_(*grammar_, kMostTextStates, kTextSteps),
        ahead_(NewAhead()),
        path_(tokens_->longest() + 1) {
    start_ = text_.Start();
  }

  State Start() const override { return start_; }

  Result<State> Next(State state, TokenId token) override {
    const std::string_view bytes = tokens_->Bytes(token);
    int32_t at = bytes.empty() ? kDead : state;
    for (size_t i = 0; i < bytes.size() && at != kDead; ++i) at = text_.Step(at, static_cast<uint8_t>(bytes[i]));
    RETURN_IF_ERROR(text_.problem());
    if (at == kDead) return Internal("token {} was not allowed by the constraint", token);
    return at;
  }

  Result<std::span<const uint64_t>> Mask(State state) override {
    if (const auto found = masks_.find(state); found != masks_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second);
      return std::span<const uint64_t>(recent_.front().words);
    }
    std::vector<uint64_t> words(tokens_->mask_words(), 0);
    RETURN_IF_ERROR(FillMask(state, words));
    if (!MayEnd(state) && std::ranges::all_of(words, [](uint64_t word) { return word == 0; })) {
      return InvalidArgument(
          "the text cannot go on as its schema demands: the model's vocabulary has no token for any byte that may "
          "come; use a schema without such texts, or another model");
    }
    if (recent_.size() >= kMasksKept) {
      masks_.erase(recent_.back().state);
      recent_.pop_back();
    }
    recent_.push_front({state, std::move(words)});
    masks_[state] = recent_.begin();
    return std::span<const uint64_t>(recent_.front().words);
  }

  bool MayEnd(State state) const override { return text_.Accepts(state); }
  bool MustEnd(State state) const override { return MayEnd(state) && text_.FramesOf(state).empty(); }
  std::string_view Bytes(TokenId token) const override { return tokens_->Bytes(token); }

 private:
  struct CachedMask {
    State state;
    std::vector<uint64_t> words;
  };

  JsonMachine NewAhead() const { return {*grammar_, kMostMaskStates, kMaskSteps}; }

  /// Frames inside a plain string are set apart, since the trie knows what such a string allows.
  Status FillMask(State state, std::vector<uint64_t>& words) {
    if (ahead_.size() > kMaskStatesKept) ahead_ = NewAhead();
    work_before_ = ahead_.work();
    std::vector<int32_t> others;
    for (const int32_t number : text_.FramesOf(state)) {
      if (!text_.NodeOf(text_.frame(number)).in_string) {
        others.push_back(number);
        continue;
      }
      const int32_t alone = ahead_.Import(text_, {&number, 1}, false);
      if (alone != kDead) FillString(ahead_.FramesOf(alone).front(), words);
    }
    if (!others.empty()) {
      const int32_t rest = ahead_.Import(text_, others, false);
      if (rest != kDead) Walk(rest, 0, static_cast<int32_t>(tokens_->nodes().size()), 0, words);
    }
    RETURN_IF_ERROR(ahead_.problem());
    if (TooSlow()) {
      return ResourceExhausted(
          "finding out which tokens may come takes too long; make the schema's patterns and alternatives simpler");
    }
    return OkStatus();
  }

  bool TooSlow() const { return ahead_.work() - work_before_ > kMostMaskWork; }

  /// Sets the tokens at the trie's nodes from `first` up to `after`, which lie below a node of this depth in `state`.
  void Walk(int32_t state, int32_t first, int32_t after, size_t depth, std::vector<uint64_t>& words) {
    const auto nodes = tokens_->nodes();
    path_[depth] = state;
    for (int32_t i = first; i < after && !TooSlow();) {
      const TokenTrie::Node& node = nodes[static_cast<size_t>(i)];
      const int32_t next = ahead_.Step(path_[node.depth - 1u], node.byte);
      if (next == kDead) {
        i = node.after;
        continue;
      }
      path_[node.depth] = next;
      SetTokens(i, words);
      ++i;
    }
  }

  void SetTokens(int32_t node, std::vector<uint64_t>& words) const {
    for (const TokenId id : tokens_->TokensAt(node)) words[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
  }

  /// Sets what may come when a frame of `ahead_` stands inside a plain string.
  void FillString(int32_t number, std::vector<uint64_t>& words) {
    const JsonFrame frame = ahead_.frame(number);
    const JsonGrammar::Bounds& bounds = grammar_->bounds[static_cast<size_t>(ahead_.NodeOf(frame).shape)];
    const int64_t left = bounds.most < 0 ? std::numeric_limits<int64_t>::max() : bounds.most - frame.count;
    const auto inside = tokens_->string_tokens();
    if (inside.empty() || inside.front().characters <= left) {
      for (size_t i = 0; i < words.size(); ++i) words[i] |= tokens_->string_mask()[i];
    } else {
      const auto fits = std::ranges::find_if(inside, [&](const auto& token) { return token.characters <= left; });
      for (auto at = fits; at != inside.end(); ++at) {
        words[static_cast<size_t>(at->id) / 64] |= uint64_t{1} << (at->id % 64);
      }
    }
    const int32_t closed = ahead_.CloseString(number);
    if (closed == kDead) return;
    for (const TokenTrie::StringEnd& end : tokens_->string_ends()) {
      if (end.characters > left || frame.count + end.characters < bounds.least) continue;
      const TokenTrie::Node& at = tokens_->nodes()[static_cast<size_t>(end.node)];
      SetTokens(end.node, words);
      Walk(closed, end.node + 1, at.after, at.depth, words);
    }
  }

  std::shared_ptr<const JsonGrammar> grammar_;
  std::shared_ptr<const TokenTrie> tokens_;
  JsonMachine text_;
  JsonMachine ahead_;
  int64_t work_before_ = 0;
  State start_ = 0;
  std::vector<int32_t> path_;  // states, by depth in the trie
  std::list<CachedMask> recent_;
  std::unordered_map<State, std::list<CachedMask>::iterator> masks_;
};

}  // namespace

std::unique_ptr<Constraint> MakeJsonConstraint(std::shared_ptr<const JsonGrammar> grammar,
                                               std::shared_ptr<const TokenTrie> tokens) {
  return std::make_unique<JsonConstraint>(std::move(grammar), std::move(tokens));
}

}  // namespace kvasir
