// A constraint by a JSON grammar: which tokens keep a text on the way to a value of the grammar.
#pragma once

#include <memory>

#include "decode/constraint.h"
#include "decode/json_grammar.h"
#include "decode/token_trie.h"

namespace kvasir {

/// A text may begin with one space, since some vocabularies have no first token without one; it ends with the value.
/// States and masks are made when they are asked for: one constraint for each request (its samples share it) keeps
/// them few; grammar and trie are shared by as many as like.
///
/// A mask costs a walk of automaton and vocabulary together, where what a byte leads to is looked up, not computed
/// again; what a plain string allows is known from the trie. The last 64 masks are kept.
std::unique_ptr<Constraint> MakeJsonConstraint(std::shared_ptr<const JsonGrammar> grammar,
                                               std::shared_ptr<const TokenTrie> tokens);

}  // namespace kvasir
