// Statements and macros.
#include "text/jinja_interpreter.h"

#include <algorithm>
#include <utility>

#include "text/jinja_loop.h"

namespace kvasir::jinja {

/// A macro with the scope in which it was defined; also the `caller` of {% call %}.
class Macro : public Object {
 public:
  Macro(Interpreter& interpreter, const MacroDef& def, ScopePtr closure)
      : interpreter_(interpreter), def_(def), closure_(std::move(closure)) {}
  std::string_view type_name() const override { return "Macro"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime&, const CallArgs& args) override { return interpreter_.CallMacro(def_, closure_, args); }
  Result<std::string> Print() const override { return fmt::format("<Macro '{}'>", def_.name); }
  Result<Value> Attribute(Runtime& runtime, std::string_view name) override {
    if (name == "name") return MakeStr(def_.name);
    return Object::Attribute(runtime, name);
  }

 private:
  Interpreter& interpreter_;
  const MacroDef& def_;
  ScopePtr closure_;
};

Interpreter::Interpreter(const Template& source, Runtime& runtime, int max_depth)
    : template_(source),
      runtime_(runtime),
      max_depth_(max_depth),
      scope_(NewScope(nullptr)),
      loop_symbol_(source.symbols.Find("loop")),
      caller_symbol_(source.symbols.Find("caller")),
      kwargs_symbol_(source.symbols.Find("kwargs")),
      varargs_symbol_(source.symbols.Find("varargs")) {
  for (auto& [name, value] : Globals()) Define(name, std::move(value));
}

Interpreter::~Interpreter() {
  for (const ScopePtr& scope : captured_) scope->variables.clear();
}

void Interpreter::Define(std::string_view name, Value value) {
  const Symbol symbol = template_.symbols.Find(name);
  if (symbol >= 0) scope_->variables.insert_or_assign(symbol, std::move(value));
}

Status Interpreter::Run(StrBuilder& out) {
  out_ = &out;
  Status status = Execute(template_.body);
  out_ = nullptr;
  if (status.ok() || status.code() == StatusCode::kInvalidArgument) return status;
  return status.WithContext(fmt::format("chat template, line {}", error_line_));
}

Status Interpreter::Execute(const Body& body) {
  const Level level(*this);
  Status status = level.Check();
  for (size_t i = 0; i < body.size() && status.ok() && flow_ == Flow::kNext; ++i) {
    status = runtime_.budget().Charge(1);
    if (status.ok()) status = ExecuteStatement(*body[i]);
    if (!status.ok() && error_line_ == 0) error_line_ = body[i]->line;
  }
  return status;
}

Status Interpreter::ExecuteIn(const ScopePtr& scope, const Body& body) {
  ScopePtr outer = std::exchange(scope_, scope);
  const Status status = Execute(body);
  scope_ = std::move(outer);
  return status;
}

Result<Str> Interpreter::Capture(const ScopePtr& scope, const Body& body) {
  StrBuilder out(runtime_.budget());
  StrBuilder* const outer = std::exchange(out_, &out);
  const Status status = ExecuteIn(scope, body);
  out_ = outer;
  RETURN_IF_ERROR(status);
  return std::move(out).Finish();
}

Status Interpreter::ExecuteStatement(const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::kText: out_->Append(stmt.text); return out_->status();
    case StmtKind::kPrint:
      for (const ExprPtr& expr : stmt.exprs) {
        ASSIGN_OR_RETURN(const Value value, Eval(*expr));
        RETURN_IF_ERROR(PrintTo(runtime_.budget(), value, *out_));
      }
      return OkStatus();
    case StmtKind::kIf: return ExecuteIf(stmt);
    case StmtKind::kFor: {
      ASSIGN_OR_RETURN(const Value iterable, Eval(*stmt.exprs[0]));
      return ExecuteFor(stmt, iterable, scope_, 0);
    }
    case StmtKind::kSet: {
      ASSIGN_OR_RETURN(Value value, Eval(*stmt.exprs[0]));
      return Assign(*stmt.target, std::move(value), *scope_);
    }
    case StmtKind::kSetBlock: {
      ASSIGN_OR_RETURN(Str text, Capture(NewScope(scope_), stmt.bodies[0]));
      ASSIGN_OR_RETURN(Value value, EvalFilterChain(stmt.exprs[0].get(), Value(std::move(text))));
      return Assign(*stmt.target, std::move(value), *scope_);
    }
    case StmtKind::kMacro: {
      ASSIGN_OR_RETURN(Value macro, MakeMacro(*stmt.macro));
      scope_->variables.insert_or_assign(stmt.macro->symbol, std::move(macro));
      return OkStatus();
    }
    case StmtKind::kCallBlock: return ExecuteCallBlock(stmt);
    case StmtKind::kFilterBlock: {
      ASSIGN_OR_RETURN(Str text, Capture(NewScope(scope_), stmt.bodies[0]));
      ASSIGN_OR_RETURN(const Value value, EvalFilterChain(stmt.exprs[0].get(), Value(std::move(text))));
      return PrintTo(runtime_.budget(), value, *out_);
    }
    case StmtKind::kWith: return ExecuteWith(stmt);
    case StmtKind::kScope: return ExecuteIn(NewScope(scope_), stmt.bodies[0]);
    case StmtKind::kBreak: flow_ = Flow::kBreak; return OkStatus();
    case StmtKind::kContinue: flow_ = Flow::kContinue; return OkStatus();
  }
  return Internal("a statement of an unknown kind");
}

Status Interpreter::ExecuteIf(const Stmt& stmt) {
  for (size_t i = 0; i < stmt.bodies.size(); ++i) {
    if (i < stmt.exprs.size()) {
      ASSIGN_OR_RETURN(const Value test, Eval(*stmt.exprs[i]));
      if (!test.Truth()) continue;
    }
    return Execute(stmt.bodies[i]);
  }
  return OkStatus();
}

Status Interpreter::ExecuteFor(const Stmt& stmt, const Value& iterable, const ScopePtr& around, int depth) {
  ASSIGN_OR_RETURN(std::vector<Value> items, ToItems(runtime_, iterable));
  RETURN_IF_ERROR(runtime_.budget().Charge(16));
  if (iterable.Depth() >= kMaxValueDepth - 1) return ResourceExhausted("values are nested too deep");
  const auto loop = std::make_shared<Loop>(*this, stmt, around, std::move(items), depth, iterable.Depth() + 1);
  const Value loop_value{ObjectPtr(loop)};
  bool completed = false;
  ScopePtr scope;
  Status status;
  while (status.ok()) {
    const Result<bool> more = loop->Advance();
    if (!more.ok()) status = more.status();
    if (!more.ok() || !*more) break;
    // A scope that no macro kept can be used again.
    if (scope.use_count() == 1) {
      scope->variables.clear();
    } else {
      scope = NewScope(around);
    }
    if (loop_symbol_ >= 0) scope->variables.emplace(loop_symbol_, loop_value);
    status = Assign(*stmt.target, loop->current(), *scope);
    if (status.ok()) status = ExecuteIn(scope, stmt.bodies[0]);
    const Flow flow = std::exchange(flow_, Flow::kNext);
    if (flow == Flow::kBreak) break;
    completed |= flow == Flow::kNext;
  }
  loop->End();
  RETURN_IF_ERROR(status);
  // As Jinja compiles it: the else runs unless some round came to its end without break or continue.
  return completed ? OkStatus() : ExecuteIn(NewScope(around), stmt.bodies[1]);
}

Result<Str> Interpreter::RecurseLoop(const Stmt& stmt, const Value& iterable, const ScopePtr& around, int depth) {
  const Level level(*this);
  RETURN_IF_ERROR(level.Check());
  StrBuilder out(runtime_.budget());
  StrBuilder* const outer = std::exchange(out_, &out);
  const Status status = ExecuteFor(stmt, iterable, around, depth);
  out_ = outer;
  RETURN_IF_ERROR(status);
  return std::move(out).Finish();
}

Result<bool> Interpreter::PassesFilter(const Stmt& loop, const ScopePtr& around, const Value& item) {
  const ScopePtr scope = NewScope(around);
  RETURN_IF_ERROR(Assign(*loop.target, item, *scope));
  ScopePtr outer = std::exchange(scope_, scope);
  const Result<Value> passes = Eval(*loop.exprs[1]);
  scope_ = std::move(outer);
  RETURN_IF_ERROR(passes.status());
  return passes->Truth();
}

Status Interpreter::ExecuteWith(const Stmt& stmt) {
  const ScopePtr scope = NewScope(scope_);
  for (size_t i = 0; i < stmt.targets.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Eval(*stmt.exprs[i]));
    RETURN_IF_ERROR(Assign(*stmt.targets[i], std::move(value), *scope));
  }
  return ExecuteIn(scope, stmt.bodies[0]);
}

Status Interpreter::ExecuteCallBlock(const Stmt& stmt) {
  const Expr& call = *stmt.exprs[0];
  ASSIGN_OR_RETURN(Value caller, MakeMacro(*stmt.macro));
  ASSIGN_OR_RETURN(const Value callee, Eval(*call.args[0]));
  ASSIGN_OR_RETURN(CallArgs args, EvalArgs(call));
  args.named.emplace_back("caller", std::move(caller));
  ASSIGN_OR_RETURN(const Value result, CallValue(runtime_, callee, args));
  return PrintTo(runtime_.budget(), result, *out_);
}

Status Interpreter::Assign(const Expr& target, Value value, Scope& scope) {
  if (target.kind == ExprKind::kName) {
    scope.variables.insert_or_assign(target.symbol, std::move(value));
    return OkStatus();
  }
  if (target.kind == ExprKind::kNamespaceRef) {
    Expr name;
    name.symbol = target.symbol;
    ASSIGN_OR_RETURN(const Value object, EvalName(name));
    auto* const space = dynamic_cast<Namespace*>(object.object());
    if (!space) return InvalidData("cannot assign attribute '{}' on a non-namespace object", target.text);
    return space->Set(runtime_.budget(), target.text, std::move(value));
  }
  if (value.is_undefined()) return UndefinedError(value);
  ASSIGN_OR_RETURN(std::vector<Value> items, ToItems(runtime_, value));
  if (items.size() != target.args.size()) {
    return InvalidData("cannot unpack {} values into {} names", items.size(), target.args.size());
  }
  for (size_t i = 0; i < items.size(); ++i) RETURN_IF_ERROR(Assign(*target.args[i], std::move(items[i]), scope));
  return OkStatus();
}

Result<Value> Interpreter::MakeMacro(const MacroDef& def) {
  RETURN_IF_ERROR(runtime_.budget().Charge(8 * kElementCost));
  if (captured_.empty() || captured_.back() != scope_) captured_.push_back(scope_);
  return Value(ObjectPtr(std::make_shared<Macro>(*this, def, scope_)));
}

// Python's way to pass arguments, with Jinja's specials: missing ones are undefined, the rest goes to varargs and
// kwargs where the body mentions them.
Status Interpreter::BindMacroArgs(const MacroDef& def, const CallArgs& args, Scope& scope) {
  const size_t count = def.parameters.size();
  RETURN_IF_ERROR(runtime_.budget().Charge(count * (1 + args.named.size())));
  std::vector<bool> used(args.named.size(), false);
  bool explicit_caller = false;
  for (size_t i = 0; i < count; ++i) {
    const auto& [symbol, name] = def.parameters[i];
    explicit_caller |= name == "caller";
    std::optional<Value> value;
    if (i < args.positional.size()) {
      value = args.positional[i];
    } else {
      for (size_t k = 0; k < args.named.size() && !value; ++k) {
        if (used[k] || args.named[k].first != name) continue;
        used[k] = true;
        value = args.named[k].second;
      }
    }
    const size_t first_default = count - def.defaults.size();
    if (!value && i >= first_default) {
      ASSIGN_OR_RETURN(value, Eval(*def.defaults[i - first_default]));
    }
    if (!value) value = Value::MakeUndefined(fmt::format("parameter '{}' was not provided", name));
    scope.variables.insert_or_assign(symbol, *std::move(value));
  }
  Dict rest;
  for (size_t k = 0; k < args.named.size(); ++k) {
    const auto& [name, value] = args.named[k];
    if (used[k]) continue;
    if (name == "caller" && def.uses_caller && !explicit_caller) {
      scope.variables.insert_or_assign(caller_symbol_, value);
    } else if (def.uses_kwargs) {
      RETURN_IF_ERROR(rest.Set(MakeStr(name), value));
    } else {
      return InvalidData("macro '{}' takes no keyword argument '{}'", def.name, name.substr(0, 100));
    }
  }
  if (def.uses_caller && !explicit_caller) {
    scope.variables.try_emplace(caller_symbol_, Value::MakeUndefined("No caller defined"));
  }
  if (def.uses_kwargs) {
    ASSIGN_OR_RETURN(Value kwargs, MakeDict(runtime_.budget(), std::move(rest)));
    scope.variables.try_emplace(kwargs_symbol_, std::move(kwargs));
  }
  if (def.uses_varargs) {
    std::vector<Value> extra(args.positional.begin() + static_cast<ptrdiff_t>(std::min(count, args.positional.size())),
                             args.positional.end());
    ASSIGN_OR_RETURN(Value varargs, MakeSequence(runtime_.budget(), std::move(extra), SequenceKind::kTuple));
    scope.variables.try_emplace(varargs_symbol_, std::move(varargs));
  } else if (args.positional.size() > count) {
    return InvalidData("macro '{}' takes not more than {} argument(s)", def.name, count);
  }
  return OkStatus();
}

Result<Value> Interpreter::CallMacro(const MacroDef& def, const ScopePtr& closure, const CallArgs& args) {
  const Level level(*this);
  RETURN_IF_ERROR(level.Check());
  // Defaults are evaluated inside: they see the parameters before them.
  const ScopePtr scope = NewScope(closure);
  ScopePtr outer = std::exchange(scope_, scope);
  const Status bound = BindMacroArgs(def, args, *scope);
  scope_ = std::move(outer);
  RETURN_IF_ERROR(bound);
  ASSIGN_OR_RETURN(Str text, Capture(scope, def.body));
  return Value(std::move(text));
}

}  // namespace kvasir::jinja
