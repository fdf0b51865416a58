// Runs a parsed template.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"

namespace kvasir::jinja {

/// The variables of one block. Blocks see those of the blocks around them and assign only to their own.
struct Scope {
  std::unordered_map<Symbol, Value> variables;
  std::shared_ptr<Scope> parent;
};
using ScopePtr = std::shared_ptr<Scope>;

/// Walks the tree of one template for one rendering. Not thread-safe.
class Interpreter {
 public:
  /// max_depth: levels of blocks, expressions and macro calls at run time. Arguments outlive the interpreter.
  Interpreter(const Template& source, Runtime& runtime, int max_depth);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// Defines a variable of the template; does nothing for names that it never mentions.
  void Define(std::string_view name, Value value);
  /// Renders into `out`. Errors name the line, but for those of raise_exception.
  Status Run(StrBuilder& out);

 private:
  friend class Loop;
  friend class Macro;
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  // jinja_evaluator.cc
  Result<Value> Eval(const Expr& expr);
  Result<Value> EvalNode(const Expr& expr);
  Result<Value> EvalName(const Expr& expr);
  Result<Value> EvalItems(const Expr& expr);
  Result<Value> EvalDict(const Expr& expr);
  Result<Value> EvalSlice(const Expr& expr);
  Result<Value> EvalChain(const Expr& expr);
  Result<Value> EvalConcat(const Expr& expr);
  Result<Value> EvalLogic(const Expr& expr);
  Result<Value> EvalCompare(const Expr& expr);
  Result<Value> EvalConditional(const Expr& expr);
  Result<Value> EvalFilter(const Expr& expr, const Value& input);
  Result<Value> EvalFilterChain(const Expr* filter, Value input);
  Result<Value> EvalTest(const Expr& expr);
  Result<CallArgs> EvalArgs(const Expr& call);

  // jinja_interpreter.cc
  Status Execute(const Body& body);
  Status ExecuteIn(const ScopePtr& scope, const Body& body);
  Status ExecuteStatement(const Stmt& stmt);
  Status ExecuteIf(const Stmt& stmt);
  Status ExecuteFor(const Stmt& stmt, const Value& iterable, const ScopePtr& around, int depth);
  Status ExecuteWith(const Stmt& stmt);
  Status ExecuteCallBlock(const Stmt& stmt);
  Status Assign(const Expr& target, Value value, Scope& scope);
  Result<Str> Capture(const ScopePtr& scope, const Body& body);
  Result<Value> MakeMacro(const MacroDef& def);
  Result<Value> CallMacro(const MacroDef& def, const ScopePtr& closure, const CallArgs& args);
  Status BindMacroArgs(const MacroDef& def, const CallArgs& args, Scope& scope);
  Result<Str> RecurseLoop(const Stmt& stmt, const Value& iterable, const ScopePtr& around, int depth);
  // Whether the filter of a for loop lets the item pass.
  Result<bool> PassesFilter(const Stmt& loop, const ScopePtr& around, const Value& item);
  ScopePtr NewScope(ScopePtr parent) const { return std::make_shared<Scope>(Scope{{}, std::move(parent)}); }

  // One level of nesting at run time.
  class Level {
   public:
    explicit Level(Interpreter& interpreter) : interpreter_(interpreter) { ++interpreter_.depth_; }
    ~Level() { --interpreter_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Status Check() const;

   private:
    Interpreter& interpreter_;
  };

  const Template& template_;
  Runtime& runtime_;
  int max_depth_;
  int depth_ = 0;
  uint32_t error_line_ = 0;  // where the error that is on its way up arose
  Flow flow_ = Flow::kNext;
  StrBuilder* out_ = nullptr;
  ScopePtr scope_;
  Symbol loop_symbol_, caller_symbol_, kwargs_symbol_, varargs_symbol_;
  // Scopes that macros refer to; cleared at the end, because a macro may stand in the scope that it refers to.
  std::vector<ScopePtr> captured_;
};

}  // namespace kvasir::jinja
