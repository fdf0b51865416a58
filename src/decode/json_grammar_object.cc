// Objects in a grammar, and what is checked of a whole one.
#include <algorithm>
#include <utility>

#include "decode/json_grammar_builder.h"

namespace kvasir {
namespace {

/// Names[first, last) agree in their first `depth` bytes, which lead to a node.
struct NamePart {
  int32_t node;
  size_t first;
  size_t last;
  size_t depth;
  JsonStringState state = kInString;
};

/// Calls part(byte, begin, end) for those of names[first, last) that have this byte at `depth`, by rising byte.
template <typename Names, typename Call>
void ForEachByte(const Names& names, size_t first, size_t last, size_t depth, Call call) {
  // Sorted as signed bytes or unsigned ones, the order does not matter to the caller, who sorts edges.
  for (size_t i = first; i < last;) {
    const char byte = names[i].first[depth];
    size_t j = i;
    while (j < last && names[j].first[depth] == byte) ++j;
    call(static_cast<uint8_t>(byte), i, j);
    i = j;
  }
}

}  // namespace

int32_t JsonGrammarBuilder::NameList(std::span<const std::pair<std::string, int32_t>> names) {
  const auto first = static_cast<int32_t>(grammar_.names.size());
  if (full_ || grammar_.names.size() + names.size() > 4 * kMostNodes) {
    full_ = true;
    return 0;
  }
  for (const auto& [name, property] : names) grammar_.names.push_back(property);
  std::ranges::sort(grammar_.names.begin() + first, grammar_.names.end());
  grammar_.name_lists.push_back({first, static_cast<int32_t>(names.size())});
  return static_cast<int32_t>(grammar_.name_lists.size()) - 1;
}

/// The node before the quote of a declared name; behind[i] comes after the closing quote of property i.
int32_t JsonGrammarBuilder::NameTrie(const NameTable& names, const std::vector<int32_t>& behind, int32_t shape) {
  const auto all = std::span(names);
  const int32_t root = Add({.kind = Node::kBytes, .shape = shape});
  std::vector<NamePart> work{{.node = root, .first = 0, .last = names.size(), .depth = 0}};
  while (!work.empty() && !full_) {
    NamePart part = work.back();
    work.pop_back();
    std::vector<Edge> edges;
    if (names[part.first].first.size() == part.depth) {
      const int32_t property = names[part.first++].second;
      edges.push_back({.low = '"',
                       .high = '"',
                       .guard = Guard::kNamed,
                       .next = behind[static_cast<size_t>(property)],
                       .list = property});
    }
    ForEachByte(names, part.first, part.last, part.depth, [&](uint8_t byte, size_t i, size_t j) {
      const int32_t child = Add({.kind = Node::kBytes, .shape = shape});
      const int32_t list = NameList(all.subspan(i, j - i));
      edges.push_back({.low = byte, .high = byte, .guard = Guard::kName, .next = child, .list = list});
      work.push_back({.node = child, .first = i, .last = j, .depth = part.depth + 1});
    });
    std::ranges::sort(edges, {}, &Edge::low);
    SetEdges(part.node, edges);
  }
  return Bytes({{.low = '"', .high = '"', .guard = Guard::kName, .next = root, .list = NameList(all)}}, shape);
}

/// A rule for strings that are none of the names. As long as a string may become one of them, it is written as they
/// are, so that no other spelling of a name slips through.
int32_t JsonGrammarBuilder::OtherName(const NameTable& names) {
  const int32_t rule = NewRule();
  const std::vector<int32_t> plain = StringNodes(0, -1);
  if (names.empty()) {
    SetRule(rule, {plain.back()}, {{}});
    return rule;
  }
  std::vector<Edge> short_escapes;
  for (const char letter : std::string_view("\"\\bfnrt")) {
    const auto byte = static_cast<uint8_t>(letter);
    short_escapes.push_back({.low = byte, .high = byte, .next = plain[kInString]});
  }
  const int32_t escape = Bytes(short_escapes);
  const int32_t root = Add({.kind = Node::kBytes});
  std::vector<NamePart> work{{.node = root, .first = 0, .last = names.size(), .depth = 0}};
  while (!work.empty() && !full_) {
    NamePart part = work.back();
    work.pop_back();
    std::vector<Edge> own(256);
    for (int byte = 0; byte < 256; ++byte) {
      const auto next = NextInString(part.state, static_cast<uint8_t>(byte));
      const bool other_spelling =
          part.state >= kHexFirst || (part.state == kAfterBackslash && (byte == 'u' || byte == '/'));
      if (next == kNotAString || other_spelling) continue;
      own[static_cast<size_t>(byte)].next = next == kStringClosed ? end_ : plain[static_cast<size_t>(next)];
      if (next == kAfterBackslash) own[static_cast<size_t>(byte)].next = escape;
    }
    if (names[part.first].first.size() == part.depth) {
      ++part.first;
      own['"'].next = 0;
    }
    ForEachByte(names, part.first, part.last, part.depth, [&](uint8_t byte, size_t i, size_t j) {
      const int32_t child = Add({.kind = Node::kBytes});
      own[byte].next = child;
      const JsonStringState state = NextInString(part.state, byte);
      work.push_back({.node = child, .first = i, .last = j, .depth = part.depth + 1, .state = state});
    });
    std::vector<Edge> edges;
    for (int byte = 0; byte < 256; ++byte) {
      Edge edge = own[static_cast<size_t>(byte)];
      if (edge.next == 0) continue;
      edge.low = edge.high = static_cast<uint8_t>(byte);
      edges.push_back(edge);
    }
    SetEdges(part.node, edges);
  }
  SetRule(rule, {One('"', root)}, {{}});
  return rule;
}

Result<int32_t> JsonGrammarBuilder::Object(const std::vector<JsonProperty>& properties, int32_t extra) {
  const auto shape = static_cast<int32_t>(grammar_.objects.size());
  JsonGrammar::Object object{.rules = {}, .next_required = {}, .extra_rule = extra};
  object.next_required.assign(properties.size() + 1, static_cast<int32_t>(properties.size()));
  for (size_t i = properties.size(); i-- > 0;) {
    object.next_required[i] = properties[i].required ? static_cast<int32_t>(i) : object.next_required[i + 1];
  }
  NameTable names;
  size_t bytes = 0;
  for (const JsonProperty& property : properties) {
    object.rules.push_back(property.rule);
    names.emplace_back(JsonStringInside(property.name), static_cast<int32_t>(names.size()));
    bytes += names.back().first.size();
  }
  grammar_.objects.push_back(std::move(object));
  RETURN_IF_ERROR(budget_.Spend(static_cast<int64_t>(bytes * (extra >= 0 ? 64 : 1))));
  std::ranges::sort(names);

  // Behind each value the next property or the end; the two meet in a node that is filled last.
  const int32_t after = Add({.kind = Node::kBytes});
  std::vector<int32_t> behind;
  behind.reserve(properties.size());
  for (const JsonProperty& property : properties) behind.push_back(One(':', Space(Call(property.rule, after))));
  std::vector<int32_t> next;
  if (!names.empty()) next.push_back(NameTrie(names, behind, shape));
  if (extra >= 0) {
    const int32_t value = One(':', Space(Call(extra, after)));
    next.push_back(
        Add({.kind = Node::kTest, .guard = Guard::kExtra, .next = Call(OtherName(names), value), .shape = shape}));
  }
  const int32_t list = NameList(names);
  const int32_t comma = next.empty() ? end_ : Space(Split(next));
  const int32_t closing = Closing(Guard::kComplete, Guard::kAnyMore, list, '}', comma, shape, -1);
  if (full_) return 0;
  const Node made = grammar_.nodes[static_cast<size_t>(closing)];
  grammar_.nodes[static_cast<size_t>(after)] = made;
  next.push_back(Bytes({{.low = '}', .high = '}', .guard = Guard::kComplete, .next = end_}}, shape));
  return One('{', Space(Split(next)));
}

/// How many frames the smallest value of each rule takes: rules are looked at again when one that they need shrinks.
Status JsonGrammarBuilder::SetHeights() {
  std::vector<std::vector<int32_t>> users(needs_.size());
  std::vector<int32_t> work;
  for (size_t rule = 0; rule < needs_.size(); ++rule) {
    grammar_.rules[rule].height = kMostJsonDepth;
    work.push_back(static_cast<int32_t>(rule));
    for (const JsonNeeds& needs : needs_[rule]) {
      if (needs.jump >= 0) users[static_cast<size_t>(needs.jump)].push_back(static_cast<int32_t>(rule));
      for (const int32_t other : needs.rules) users[static_cast<size_t>(other)].push_back(static_cast<int32_t>(rule));
    }
  }
  while (!work.empty()) {
    const auto rule = static_cast<size_t>(work.back());
    work.pop_back();
    int32_t height = kMostJsonDepth;
    for (const JsonNeeds& needs : needs_[rule]) {
      RETURN_IF_ERROR(budget_.Spend(static_cast<int64_t>(needs.rules.size()) + 1));
      int32_t own = needs.jump >= 0 ? grammar_.rules[static_cast<size_t>(needs.jump)].height : 0;
      for (const int32_t other : needs.rules) {
        own = std::max(own, 1 + grammar_.rules[static_cast<size_t>(other)].height);
      }
      height = std::min(height, own);
    }
    if (height >= grammar_.rules[rule].height) continue;
    grammar_.rules[rule].height = height;
    work.insert(work.end(), users[rule].begin(), users[rule].end());
  }
  // Whitespace needs no room of its own.
  if (indent_rule_ >= 0) grammar_.rules[static_cast<size_t>(indent_rule_)].height = -kMostJsonDepth;
  return OkStatus();
}

/// A rule that comes back to itself before any byte has no meaning.
Status JsonGrammarBuilder::CheckJumps() const {
  std::vector<int32_t> waiting(needs_.size(), 0);  // jumps of each rule that are not known to end
  std::vector<std::vector<int32_t>> users(needs_.size());
  std::vector<int32_t> work;
  for (size_t rule = 0; rule < needs_.size(); ++rule) {
    for (const JsonNeeds& needs : needs_[rule]) {
      if (needs.jump < 0) continue;
      ++waiting[rule];
      users[static_cast<size_t>(needs.jump)].push_back(static_cast<int32_t>(rule));
    }
    if (waiting[rule] == 0) work.push_back(static_cast<int32_t>(rule));
  }
  size_t ended = 0;
  for (; !work.empty(); ++ended) {
    const auto rule = static_cast<size_t>(work.back());
    work.pop_back();
    for (const int32_t user : users[rule]) {
      if (--waiting[static_cast<size_t>(user)] == 0) work.push_back(user);
    }
  }
  if (ended == needs_.size()) return OkStatus();
  return InvalidArgument("the schema refers to itself through \"$ref\" and \"anyOf\" alone, which says nothing");
}

Result<JsonGrammar> JsonGrammarBuilder::Finish(int32_t root_rule) {
  const int32_t jump = Jump(root_rule);
  grammar_.root = Split({jump, One(' ', jump)});
  if (full_) {
    return InvalidArgument("the schema's automaton has more than {} nodes; make its names, lists and patterns smaller",
                           kMostNodes);
  }
  RETURN_IF_ERROR(CheckJumps());
  RETURN_IF_ERROR(SetHeights());
  if (grammar_.rules[static_cast<size_t>(root_rule)].height >= kMostJsonDepth) {
    return InvalidArgument("no text of at most {} levels satisfies the schema; what it demands contains itself",
                           kMostJsonDepth);
  }
  return std::move(grammar_);
}

}  // namespace kvasir
