#include "decode/json_grammar_builder.h"

#include <algorithm>
#include <utility>

#include "decode/json_number.h"

namespace kvasir {
namespace {

// Whitespace is for the eye; more of it than this helps nobody, and no text can go on with it for ever.
constexpr int kMostIndentSpaces = 32;
constexpr int kMostIndentTabs = 16;

/// Adds a byte behind the others; it joins the last range where it leads to the same.
void Append(std::vector<JsonGrammar::Edge>& edges, const JsonGrammar::Edge& edge) {
  if (!edges.empty()) {
    JsonGrammar::Edge& last = edges.back();
    if (last.high + 1 == edge.low && last.next == edge.next && last.guard == edge.guard && last.list == edge.list) {
      last.high = edge.high;
      return;
    }
  }
  edges.push_back(edge);
}

}  // namespace

std::string JsonStringInside(std::string_view text) {
  std::string inside;
  for (const char c : text) {
    constexpr std::string_view kSpecial = "\"\\\b\f\n\r\t";
    constexpr std::string_view kLetters = "\"\\bfnrt";
    if (const size_t at = kSpecial.find(c); at != std::string_view::npos) {
      inside += {'\\', kLetters[at]};
    } else if (static_cast<uint8_t>(c) < 0x20) {
      inside += fmt::format("\\u{:04x}", static_cast<int>(c));
    } else {
      inside += c;
    }
  }
  return inside;
}

JsonGrammarBuilder::JsonGrammarBuilder(WorkBudget& budget) : budget_(budget) {
  Add({});  // 0 stands for none
  end_ = Add({.kind = Node::kEnd});
}

int32_t JsonGrammarBuilder::Add(Node node) {
  if (grammar_.nodes.size() >= kMostNodes) {
    full_ = true;
    return 0;
  }
  grammar_.nodes.push_back(node);
  return static_cast<int32_t>(grammar_.nodes.size()) - 1;
}

void JsonGrammarBuilder::SetEdges(int32_t node, const std::vector<Edge>& edges) {
  if (full_ || grammar_.edges.size() + edges.size() > 4 * kMostNodes) {
    full_ = true;
    return;
  }
  Node& target = grammar_.nodes[static_cast<size_t>(node)];
  target.kind = Node::kBytes;
  target.first = static_cast<int32_t>(grammar_.edges.size());
  target.count = static_cast<int32_t>(edges.size());
  grammar_.edges.insert(grammar_.edges.end(), edges.begin(), edges.end());
}

int32_t JsonGrammarBuilder::Bytes(const std::vector<Edge>& edges, int32_t shape, int32_t rule) {
  const int32_t node = Add({.kind = Node::kBytes, .rule = rule, .shape = shape});
  SetEdges(node, edges);
  return node;
}

int32_t JsonGrammarBuilder::One(char byte, int32_t next) {
  return Bytes({{.low = static_cast<uint8_t>(byte), .high = static_cast<uint8_t>(byte), .next = next}});
}

int32_t JsonGrammarBuilder::Split(const std::vector<int32_t>& nodes) {
  if (nodes.size() == 1) return nodes[0];
  if (full_ || grammar_.targets.size() + nodes.size() > kMostNodes) {
    full_ = true;
    return 0;
  }
  const int32_t node = Add({.kind = Node::kSplit,
                            .first = static_cast<int32_t>(grammar_.targets.size()),
                            .count = static_cast<int32_t>(nodes.size())});
  grammar_.targets.insert(grammar_.targets.end(), nodes.begin(), nodes.end());
  return node;
}

int32_t JsonGrammarBuilder::Call(int32_t rule, int32_t next) {
  return Add({.kind = Node::kCall, .rule = rule, .next = next});
}

int32_t JsonGrammarBuilder::Jump(int32_t rule) { return Add({.kind = Node::kJump, .rule = rule}); }

int32_t JsonGrammarBuilder::NewRule() {
  grammar_.rules.emplace_back();
  needs_.emplace_back();
  return static_cast<int32_t>(grammar_.rules.size()) - 1;
}

void JsonGrammarBuilder::SetRule(int32_t rule, const std::vector<int32_t>& nodes, std::vector<JsonNeeds> needs) {
  const int32_t entry = Split(nodes);
  grammar_.rules[static_cast<size_t>(rule)].entry = entry;
  needs_[static_cast<size_t>(rule)] = std::move(needs);
}

/// What follows a line feed: spaces or tabs, up to a bound.
int32_t JsonGrammarBuilder::IndentRule() {
  if (indent_rule_ >= 0) return indent_rule_;
  indent_rule_ = NewRule();
  const auto run = [&](char byte, int most) {
    int32_t next = end_;
    for (int i = 0; i < most; ++i) {
      next = One(byte, next);
      grammar_.nodes[static_cast<size_t>(next)].ends = i + 1 < most;
    }
    return next;
  };
  SetRule(indent_rule_, {run(' ', kMostIndentSpaces), run('\t', kMostIndentTabs), end_}, {{}});
  return indent_rule_;
}

/// Perhaps a space, or a line feed with what indents the next line, before `next`.
int32_t JsonGrammarBuilder::Space(int32_t next) {
  const int32_t line = Call(IndentRule(), next);
  const int32_t space = Bytes({{.low = '\n', .high = '\n', .next = line}, {.low = ' ', .high = ' ', .next = next}});
  return Split({next, space});
}

int32_t JsonGrammarBuilder::Texts(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  struct Part {
    int32_t node;
    size_t first;
    size_t last;
    size_t depth;
  };
  const int32_t root = Add({.kind = Node::kBytes});
  std::vector<Part> work{{root, 0, texts.size(), 0}};
  while (!work.empty() && !full_) {
    Part part = work.back();
    work.pop_back();
    if (texts[part.first].size() == part.depth) {
      grammar_.nodes[static_cast<size_t>(part.node)].ends = true;
      ++part.first;
    }
    std::vector<Edge> edges;
    for (size_t i = part.first; i < part.last;) {
      const char byte = texts[i][part.depth];
      size_t j = i;
      while (j < part.last && texts[j][part.depth] == byte) ++j;
      const int32_t child = Add({.kind = Node::kBytes});
      edges.push_back({.low = static_cast<uint8_t>(byte), .high = static_cast<uint8_t>(byte), .next = child});
      work.push_back({child, i, j, part.depth + 1});
      i = j;
    }
    std::ranges::sort(edges, {}, &Edge::low);
    SetEdges(part.node, edges);
  }
  return root;
}

/// The nodes of a plain string by JsonStringState, and behind them the one before its first quote.
std::vector<int32_t> JsonGrammarBuilder::StringNodes(int64_t least, int64_t most) {
  const auto [found, added] = strings_.try_emplace({least, most});
  if (!added) return found->second;
  const auto shape = static_cast<int32_t>(grammar_.bounds.size());
  grammar_.bounds.push_back({least, most});
  std::vector<int32_t> nodes;
  nodes.reserve(kJsonStringStates + 1);
  for (int state = 0; state < kJsonStringStates; ++state) {
    nodes.push_back(Add({.kind = Node::kBytes, .in_string = state == kInString, .shape = shape}));
  }
  for (int state = 0; state < kJsonStringStates; ++state) {
    std::vector<Edge> edges;
    for (int byte = 0; byte < 256; ++byte) {
      const JsonStringState next = NextInString(static_cast<JsonStringState>(state), static_cast<uint8_t>(byte));
      if (next == kNotAString) continue;
      Edge edge{.low = static_cast<uint8_t>(byte), .high = static_cast<uint8_t>(byte)};
      if (state == kInString) edge.guard = next == kStringClosed ? Guard::kEnough : Guard::kMore;
      edge.next = next == kStringClosed ? end_ : nodes[static_cast<size_t>(next)];
      Append(edges, edge);
    }
    SetEdges(nodes[static_cast<size_t>(state)], edges);
  }
  nodes.push_back(One('"', nodes[kInString]));
  strings_[{least, most}] = nodes;
  return nodes;
}

int32_t JsonGrammarBuilder::PlainString(int64_t least, int64_t most) { return StringNodes(least, most).back(); }

int32_t JsonGrammarBuilder::Automaton(const ByteDfa& dfa, bool quoted) {
  std::vector<int32_t> nodes;
  nodes.reserve(dfa.states.size());
  for (const ByteDfa::State& state : dfa.states) {
    nodes.push_back(Add({.kind = Node::kBytes, .ends = state.accepts && !quoted}));
  }
  for (size_t i = 0; i < nodes.size() && !full_; ++i) {
    std::vector<Edge> edges;
    for (const ByteEdge& edge : dfa.states[i].edges) {
      edges.push_back({.low = edge.low, .high = edge.high, .next = nodes[static_cast<size_t>(edge.to)]});
    }
    if (quoted && dfa.states[i].accepts) edges.push_back({.low = '"', .high = '"', .next = end_});
    std::ranges::sort(edges, {}, &Edge::low);
    SetEdges(nodes[i], edges);
  }
  return quoted ? One('"', nodes[0]) : nodes[0];
}

/// Behind an item or a property: a comma, or the closing bracket, perhaps behind whitespace.
int32_t JsonGrammarBuilder::Closing(Guard guard, Guard comma, int32_t list, char bracket, int32_t comma_next,
                                    int32_t shape, int32_t rule) {
  const int32_t close = One(bracket, end_);
  const auto end = static_cast<uint8_t>(bracket);
  return Bytes({{.low = '\n', .high = '\n', .guard = guard, .next = Call(IndentRule(), close)},
                {.low = ' ', .high = ' ', .guard = guard, .next = close},
                {.low = ',', .high = ',', .guard = comma, .next = comma_next, .list = list},
                {.low = end, .high = end, .guard = guard, .next = end_}},
               shape, rule);
}

int32_t JsonGrammarBuilder::Array(const std::vector<int32_t>& prefix, int32_t items, int64_t least, int64_t most) {
  const auto shape = static_cast<int32_t>(grammar_.bounds.size());
  if (items < 0) most = std::min(most < 0 ? INT64_MAX : most, static_cast<int64_t>(prefix.size()));
  grammar_.bounds.push_back({least, most});
  const auto rule_of = [&](size_t i) { return i < prefix.size() ? prefix[i] : items; };
  // From the end: behind the last item of its own kind all others are alike.
  int32_t next_item = -1;
  for (size_t i = prefix.size() + 1; i-- > 0;) {
    const int32_t rule = rule_of(i);
    if (rule < 0) continue;
    const int32_t after = Add({.kind = Node::kBytes});
    const int32_t item = Call(rule, after);
    const int32_t following = i >= prefix.size() ? item : next_item;
    const int32_t next_rule = rule_of(std::min(i + 1, prefix.size()));
    // Where nothing follows, the bound keeps the comma away.
    const int32_t closing = Closing(Guard::kEnough, following < 0 ? Guard::kMore : Guard::kItem, 0, ']',
                                    following < 0 ? end_ : Space(following), shape, next_rule);
    if (!full_) {
      const Node made = grammar_.nodes[static_cast<size_t>(closing)];
      grammar_.nodes[static_cast<size_t>(after)] = made;
    }
    next_item = item;
  }
  std::vector<int32_t> first{Bytes({{.low = ']', .high = ']', .guard = Guard::kEnough, .next = end_}}, shape)};
  if (next_item >= 0) {
    first.push_back(
        Add({.kind = Node::kTest, .guard = Guard::kItem, .rule = rule_of(0), .next = next_item, .shape = shape}));
  }
  return One('[', Space(Split(first)));
}

Result<int32_t> JsonGrammarBuilder::Any() {
  if (any_rule_ >= 0) return any_rule_;
  any_rule_ = NewRule();
  const int32_t rule = any_rule_;
  ASSIGN_OR_RETURN(const ByteDfa number, CompileJsonNumber(false, {}, budget_));
  ASSIGN_OR_RETURN(const int32_t object, Object({}, rule));
  SetRule(
      rule,
      {PlainString(0, -1), Automaton(number, false), Texts({"true", "false", "null"}), Array({}, rule, 0, -1), object},
      {{}});
  return rule;
}

}  // namespace kvasir
