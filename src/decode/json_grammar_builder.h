// Puts a JsonGrammar together, piece by piece.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "decode/byte_dfa.h"
#include "decode/json_grammar.h"
#include "decode/json_string_scan.h"

namespace kvasir {

/// `text` as a JSON string without its quotes, in the one way in which grammars write it: UTF-8 as it is, the short
/// escapes, and \u00xx for other control characters.
std::string JsonStringInside(std::string_view text);

/// A property of an object that is being built.
struct JsonProperty {
  std::string name;
  int32_t rule;
  bool required;
};

/// What a rule's value has to hold: one of these.
struct JsonNeeds {
  std::vector<int32_t> rules;  // values inside the rule's own, all of them
  int32_t jump = -1;           // or another rule's value in its place
};

/// Nodes that rules have in common may be used by all of them. Beyond the limits nothing is added, and Finish fails.
class JsonGrammarBuilder {
 public:
  using Guard = JsonGrammar::Guard;
  using Edge = JsonGrammar::Edge;
  using Node = JsonGrammar::Node;

  explicit JsonGrammarBuilder(WorkBudget& budget);

  int32_t NewRule();
  /// A rule begins at a split of these nodes.
  void SetRule(int32_t rule, const std::vector<int32_t>& nodes, std::vector<JsonNeeds> needs);

  // Each adds what leads from the node that it returns to the end of a value.
  int32_t Jump(int32_t rule);
  /// Any of some texts. REQUIRES: not empty.
  int32_t Texts(std::vector<std::string> texts);
  /// A string of least to most characters (most < 0: any number), written in any way.
  int32_t PlainString(int64_t least, int64_t most);
  /// The texts of an automaton; `quoted`: they are the insides of strings.
  int32_t Automaton(const ByteDfa& dfa, bool quoted);
  /// Items by the rules of `prefix`, then by `items` (-1: there are none).
  int32_t Array(const std::vector<int32_t>& prefix, int32_t items, int64_t least, int64_t most);
  /// Properties in this order, then by `extra` (-1: none) what has another name. Names are all different.
  Result<int32_t> Object(const std::vector<JsonProperty>& properties, int32_t extra);

  /// The rule of any value.
  Result<int32_t> Any();

  /// InvalidArgument: there is no finite text, a rule begins with itself, or it is too large.
  Result<JsonGrammar> Finish(int32_t root_rule);

 private:
  static constexpr size_t kMostNodes = size_t{1} << 19;

  int32_t Add(Node node);
  void SetEdges(int32_t node, const std::vector<Edge>& edges);
  int32_t Bytes(const std::vector<Edge>& edges, int32_t shape = -1, int32_t rule = -1);
  int32_t One(char byte, int32_t next);
  int32_t Split(const std::vector<int32_t>& nodes);
  int32_t Call(int32_t rule, int32_t next);
  int32_t Space(int32_t next);
  int32_t Closing(Guard guard, Guard comma, int32_t list, char bracket, int32_t comma_next, int32_t shape,
                  int32_t rule);
  std::vector<int32_t> StringNodes(int64_t least, int64_t most);
  /// Names as they are written, sorted, with the properties that bear them.
  using NameTable = std::vector<std::pair<std::string, int32_t>>;
  int32_t NameTrie(const NameTable& names, const std::vector<int32_t>& behind, int32_t shape);
  int32_t OtherName(const NameTable& names);
  int32_t NameList(std::span<const std::pair<std::string, int32_t>> names);
  int32_t IndentRule();
  Status SetHeights();
  Status CheckJumps() const;

  WorkBudget& budget_;
  JsonGrammar grammar_;
  std::vector<std::vector<JsonNeeds>> needs_;  // by rule
  bool full_ = false;
  int32_t end_ = 0;
  int32_t indent_rule_ = -1;
  int32_t any_rule_ = -1;
  std::map<std::pair<int64_t, int64_t>, std::vector<int32_t>> strings_;  // by bounds: nodes by state, then the first
};

}  // namespace kvasir
