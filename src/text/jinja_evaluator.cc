// Expressions.
#include "text/jinja_interpreter.h"

namespace kvasir::jinja {

Status Interpreter::Level::Check() const {
  if (interpreter_.depth_ <= interpreter_.max_depth_) return OkStatus();
  return ResourceExhausted(
      "blocks, expressions and macro calls are nested deeper than {} levels (see "
      "TemplateLimits::max_depth); is a macro calling itself without end?",
      interpreter_.max_depth_);
}

Result<Value> Interpreter::Eval(const Expr& expr) {
  const Level level(*this);
  Status status = level.Check();
  if (status.ok()) status = runtime_.budget().Charge(1);
  Result<Value> result = status.ok() ? EvalNode(expr) : Result<Value>(status);
  if (!result.ok() && error_line_ == 0) error_line_ = expr.line;
  return result;
}

Result<Value> Interpreter::EvalNode(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConst: return expr.value;
    case ExprKind::kName: return EvalName(expr);
    case ExprKind::kList:
    case ExprKind::kTuple: return EvalItems(expr);
    case ExprKind::kDict: return EvalDict(expr);
    case ExprKind::kSlice: return EvalSlice(expr);
    case ExprKind::kArithmetic: return EvalChain(expr);
    case ExprKind::kConcat: return EvalConcat(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr: return EvalLogic(expr);
    case ExprKind::kCompare: return EvalCompare(expr);
    case ExprKind::kConditional: return EvalConditional(expr);
    case ExprKind::kTest: return EvalTest(expr);
    default: break;
  }
  ASSIGN_OR_RETURN(const Value operand, Eval(*expr.args[0]));
  switch (expr.kind) {
    case ExprKind::kGetAttr: return GetAttribute(runtime_, operand, expr.text);
    case ExprKind::kGetItem: {
      ASSIGN_OR_RETURN(const Value key, Eval(*expr.args[1]));
      return GetItem(runtime_, operand, key);
    }
    case ExprKind::kCall: {
      ASSIGN_OR_RETURN(const CallArgs args, EvalArgs(expr));
      return CallValue(runtime_, operand, args);
    }
    case ExprKind::kFilter: return EvalFilter(expr, operand);
    case ExprKind::kNot: return Value(!operand.Truth());
    case ExprKind::kNeg: return Sign(true, operand);
    case ExprKind::kPos: return Sign(false, operand);
    default: return Internal("an expression of an unknown kind");
  }
}

Result<Value> Interpreter::EvalName(const Expr& expr) {
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get()) {
    const auto it = scope->variables.find(expr.symbol);
    if (it != scope->variables.end()) return it->second;
  }
  return Value::MakeUndefined(fmt::format("'{}' is undefined", expr.text.substr(0, 100)));
}

Result<Value> Interpreter::EvalItems(const Expr& expr) {
  std::vector<Value> items;
  items.reserve(expr.args.size());
  for (const ExprPtr& arg : expr.args) {
    ASSIGN_OR_RETURN(Value item, Eval(*arg));
    items.push_back(std::move(item));
  }
  return MakeSequence(runtime_.budget(), std::move(items),
                      expr.kind == ExprKind::kList ? SequenceKind::kList : SequenceKind::kTuple);
}

Result<Value> Interpreter::EvalDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i < expr.args.size(); i += 2) {
    ASSIGN_OR_RETURN(Value key, Eval(*expr.args[i]));
    ASSIGN_OR_RETURN(Value value, Eval(*expr.args[i + 1]));
    RETURN_IF_ERROR(dict.Set(std::move(key), std::move(value)));
  }
  return MakeDict(runtime_.budget(), std::move(dict));
}

Result<Value> Interpreter::EvalSlice(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value object, Eval(*expr.args[0]));
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (!expr.args[i + 1]) continue;
    ASSIGN_OR_RETURN(bounds[i], Eval(*expr.args[i + 1]));
  }
  return GetSlice(runtime_, object, bounds[0], bounds[1], bounds[2]);
}

Result<Value> Interpreter::EvalChain(const Expr& expr) {
  ASSIGN_OR_RETURN(Value result, Eval(*expr.args[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    ASSIGN_OR_RETURN(const Value next, Eval(*expr.args[i + 1]));
    ASSIGN_OR_RETURN(result, Arithmetic(runtime_, expr.ops[i], result, next));
  }
  return result;
}

Result<Value> Interpreter::EvalConcat(const Expr& expr) {
  StrBuilder out(runtime_.budget());
  for (const ExprPtr& arg : expr.args) {
    ASSIGN_OR_RETURN(const Value part, Eval(*arg));
    RETURN_IF_ERROR(PrintTo(runtime_.budget(), part, out));
  }
  ASSIGN_OR_RETURN(Str text, std::move(out).Finish());
  return Value(std::move(text));
}

Result<Value> Interpreter::EvalLogic(const Expr& expr) {
  Value value;
  for (const ExprPtr& arg : expr.args) {
    ASSIGN_OR_RETURN(value, Eval(*arg));
    if (value.Truth() == (expr.kind == ExprKind::kOr)) break;
  }
  return value;
}

Result<Value> Interpreter::EvalCompare(const Expr& expr) {
  ASSIGN_OR_RETURN(Value left, Eval(*expr.args[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Eval(*expr.args[i + 1]));
    ASSIGN_OR_RETURN(const bool holds, Compare(runtime_, expr.ops[i], left, right));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Result<Value> Interpreter::EvalConditional(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value test, Eval(*expr.args[1]));
  if (test.Truth()) return Eval(*expr.args[0]);
  if (expr.args[2]) return Eval(*expr.args[2]);
  return Value::MakeUndefined("the inline if-expression evaluated to false and no else section was defined.");
}

Result<Value> Interpreter::EvalFilter(const Expr& expr, const Value& input) {
  ASSIGN_OR_RETURN(const CallArgs args, EvalArgs(expr));
  return ApplyFilter(runtime_, expr.text, input, args);
}

// The filters of {% filter %} and {% set x | … %}: the innermost has nothing as its input and gets `input`.
Result<Value> Interpreter::EvalFilterChain(const Expr* filter, Value input) {
  if (!filter) return input;
  if (filter->args[0]) {
    ASSIGN_OR_RETURN(input, EvalFilterChain(filter->args[0].get(), std::move(input)));
  }
  Result<Value> result = EvalFilter(*filter, input);
  if (!result.ok() && error_line_ == 0) error_line_ = filter->line;
  return result;
}

Result<Value> Interpreter::EvalTest(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value input, Eval(*expr.args[0]));
  ASSIGN_OR_RETURN(const CallArgs args, EvalArgs(expr));
  ASSIGN_OR_RETURN(const bool passes, ApplyTest(runtime_, expr.text, input, args));
  return Value(passes);
}

// The arguments of a call, filter or test: everything but args[0].
Result<CallArgs> Interpreter::EvalArgs(const Expr& call) {
  CallArgs args;
  for (size_t i = 1; i < call.args.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Eval(*call.args[i]));
    args.positional.push_back(std::move(value));
  }
  for (const auto& [name, expr] : call.named) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr));
    args.named.emplace_back(name, std::move(value));
  }
  if (call.star) {
    ASSIGN_OR_RETURN(const Value star, Eval(*call.star));
    ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime_, star));
    args.positional.insert(args.positional.end(), items.begin(), items.end());
  }
  if (call.star_star) {
    ASSIGN_OR_RETURN(const Value named, Eval(*call.star_star));
    if (!named.dict()) return InvalidData("argument after ** must be a mapping, not {}", named.TypeName());
    for (const auto& [key, value] : named.dict()->entries()) {
      if (!key.str()) return InvalidData("keywords must be strings");
      args.named.emplace_back(std::string(key.str()->view()), value);
    }
    RETURN_IF_ERROR(runtime_.budget().Charge(4 * kElementCost * args.named.size()));
  }
  return args;
}

}  // namespace kvasir::jinja
