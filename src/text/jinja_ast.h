// The syntax tree of a template. Immutable after parsing; shared by renderings on any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace kvasir::jinja {

/// A variable's name as a small number.
using Symbol = int32_t;

enum class ExprKind : uint8_t {
  kConst,    // value
  kName,     // symbol, text
  kList,     // args
  kTuple,    // args
  kDict,     // args: key, value, key, value, …
  kGetAttr,  // args[0] . text
  kGetItem,  // args[0] [ args[1] ]
  kSlice,    // args[0] [ args[1] : args[2] : args[3] ], where null is left out
  kCall,     // args[0] ( args[1…], named, star, star_star )
  kFilter,   // args[0] | text ( args[1…], … ); args[0] is null in {% filter %} and {% set | filter %}
  kTest,     // args[0] is text ( args[1…], … )
  kNot,
  kNeg,
  kPos,         // args[0]
  kArithmetic,  // args[0] ops[0] args[1] ops[1] …, from left to right
  kConcat,      // args[0] ~ args[1] ~ …
  kAnd,
  kOr,            // args
  kCompare,       // args[0] ops[0] args[1] ops[1] …
  kConditional,   // args[0] if args[1] else args[2] (may be null)
  kNamespaceRef,  // symbol . text, as a target of set
};

enum class Op : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow, kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind = ExprKind::kConst;
  uint32_t line = 0;
  int depth = 1;  // of this subtree, at most TemplateLimits::max_depth
  Symbol symbol = -1;
  std::string text;
  Value value;
  std::vector<ExprPtr> args;
  std::vector<Op> ops;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, star_star;  // *args and **kwargs of a call
};

enum class StmtKind : uint8_t {
  kText,         // text
  kPrint,        // exprs
  kIf,           // exprs[i] chooses bodies[i]; one more body is the else
  kFor,          // target in exprs[0] if exprs[1] (may be null): bodies[0], else bodies[1]
  kSet,          // target = exprs[0]
  kSetBlock,     // target = bodies[0] through the filter exprs[0] (may be null)
  kMacro,        // macro
  kCallBlock,    // exprs[0], a call, with macro as its caller
  kFilterBlock,  // bodies[0] through the filter exprs[0]
  kWith,         // targets[i] = exprs[i] in bodies[0]
  kScope,        // bodies[0] with its own variables ({% generation %})
  kBreak,
  kContinue,
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

/// A macro, or the body of {% call %}.
struct MacroDef {
  std::string name;
  Symbol symbol = -1;
  std::vector<std::pair<Symbol, std::string>> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  uint32_t line = 0;
  bool recursive = false;  // for … recursive
  Str text;
  ExprPtr target;
  std::vector<ExprPtr> targets;
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
  std::unique_ptr<MacroDef> macro;
};

/// Names of variables, numbered in order of appearance.
class SymbolTable {
 public:
  Symbol Intern(std::string_view name) {
    return symbols_.try_emplace(std::string(name), static_cast<Symbol>(symbols_.size())).first->second;
  }
  /// -1 for a name that the template never uses.
  Symbol Find(std::string_view name) const {
    const auto it = symbols_.find(std::string(name));
    return it == symbols_.end() ? -1 : it->second;
  }

 private:
  std::unordered_map<std::string, Symbol> symbols_;
};

/// A parsed template.
struct Template {
  SymbolTable symbols;
  Body body;
};

}  // namespace kvasir::jinja
