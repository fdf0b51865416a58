#include "text/jinja_expression_parser.h"

#include <algorithm>
#include <charconv>

#include "text/jinja_runtime.h"

namespace kvasir::jinja {
namespace {

std::string WithoutUnderscores(std::string_view text) {
  std::string out(text);
  std::erase(out, '_');
  return out;
}

}  // namespace

const Token& ExpressionParser::Next() {
  const Token& token = Current();
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool ExpressionParser::IsOperator(std::string_view text) const {
  return Current().type == TokenType::kOperator && Current().text == text;
}

bool ExpressionParser::IsName(std::string_view text) const {
  return Current().type == TokenType::kName && Current().text == text;
}

bool ExpressionParser::SkipOperator(std::string_view text) {
  const bool found = IsOperator(text);
  if (found) Next();
  return found;
}

bool ExpressionParser::SkipName(std::string_view text) {
  const bool found = IsName(text);
  if (found) Next();
  return found;
}

Status ExpressionParser::Error(uint32_t line, std::string_view what) const {
  return InvalidData("chat template, line {}: {}", line, what);
}

Status ExpressionParser::Unexpected(std::string_view wanted) const {
  const Token& token = Current();
  const std::string found = token.type == TokenType::kEnd    ? "the end of the template"
                            : token.type == TokenType::kData ? "text"
                                                             : fmt::format("'{}'", token.text.substr(0, 60));
  return Error(token.line, fmt::format("expected {}, got {}", wanted, found));
}

Status ExpressionParser::ExpectOperator(std::string_view text) {
  return SkipOperator(text) ? OkStatus() : Unexpected(fmt::format("'{}'", text));
}

Result<const Token*> ExpressionParser::ExpectName() {
  if (Current().type != TokenType::kName) return Unexpected("a name");
  return &Next();
}

Status ExpressionParser::Nesting::Check() const {
  if (parser_.depth_ <= parser_.max_depth_) return OkStatus();
  return ResourceExhausted("chat template, line {}: nested deeper than TemplateLimits::max_depth ({})",
                           parser_.Current().line, parser_.max_depth_);
}

// Settles a node's depth, which bounds the recursion of everything that walks the tree.
Result<ExprPtr> ExpressionParser::Finish(ExprPtr node) const {
  int depth = 0;
  for (const ExprPtr& arg : node->args) depth = std::max(depth, arg ? arg->depth : 0);
  for (const auto& [name, arg] : node->named) depth = std::max(depth, arg->depth);
  if (node->star) depth = std::max(depth, node->star->depth);
  if (node->star_star) depth = std::max(depth, node->star_star->depth);
  node->depth = depth + 1;
  if (node->depth > max_depth_) {
    return ResourceExhausted(
        "chat template, line {}: an expression is nested deeper than TemplateLimits::max_depth ({})", node->line,
        max_depth_);
  }
  return node;
}

Result<ExprPtr> ExpressionParser::ParseExpression(bool conditional) {
  const Nesting nesting(*this);
  RETURN_IF_ERROR(nesting.Check());
  ASSIGN_OR_RETURN(ExprPtr node, ParseOr());
  while (conditional && IsName("if")) {
    ExprPtr choice = NewExpr(ExprKind::kConditional, Next().line);
    choice->args.push_back(std::move(node));
    ASSIGN_OR_RETURN(ExprPtr test, ParseOr());
    choice->args.push_back(std::move(test));
    ExprPtr otherwise;
    if (SkipName("else")) {
      ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    choice->args.push_back(std::move(otherwise));
    ASSIGN_OR_RETURN(node, Finish(std::move(choice)));
  }
  return node;
}

Result<ExprPtr> ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(ExprPtr node, ParseAnd());
  if (!IsName("or")) return node;
  ExprPtr all = NewExpr(ExprKind::kOr, Current().line);
  all->args.push_back(std::move(node));
  while (SkipName("or")) {
    ASSIGN_OR_RETURN(ExprPtr next, ParseAnd());
    all->args.push_back(std::move(next));
  }
  return Finish(std::move(all));
}

Result<ExprPtr> ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(ExprPtr node, ParseNot());
  if (!IsName("and")) return node;
  ExprPtr all = NewExpr(ExprKind::kAnd, Current().line);
  all->args.push_back(std::move(node));
  while (SkipName("and")) {
    ASSIGN_OR_RETURN(ExprPtr next, ParseNot());
    all->args.push_back(std::move(next));
  }
  return Finish(std::move(all));
}

Result<ExprPtr> ExpressionParser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  const Nesting nesting(*this);
  RETURN_IF_ERROR(nesting.Check());
  ExprPtr node = NewExpr(ExprKind::kNot, Next().line);
  ASSIGN_OR_RETURN(ExprPtr operand, ParseNot());
  node->args.push_back(std::move(operand));
  return Finish(std::move(node));
}

bool ExpressionParser::CompareOp(Op& op) {
  static constexpr OpToken kOps[] = {{"==", Op::kEq}, {"!=", Op::kNe}, {"<", Op::kLt},
                                     {"<=", Op::kLe}, {">", Op::kGt},  {">=", Op::kGe}};
  for (const OpToken& candidate : kOps) {
    if (!SkipOperator(candidate.text)) continue;
    op = candidate.op;
    return true;
  }
  if (SkipName("in")) {
    op = Op::kIn;
    return true;
  }
  if (!IsName("not") || Look().type != TokenType::kName || Look().text != "in") return false;
  Next();
  Next();
  op = Op::kNotIn;
  return true;
}

Result<ExprPtr> ExpressionParser::ParseCompare() {
  const uint32_t line = Current().line;
  ASSIGN_OR_RETURN(ExprPtr node, ParseChain(0));
  Op op;
  if (!CompareOp(op)) return node;
  ExprPtr chain = NewExpr(ExprKind::kCompare, line);
  chain->args.push_back(std::move(node));
  do {
    chain->ops.push_back(op);
    ASSIGN_OR_RETURN(ExprPtr next, ParseChain(0));
    chain->args.push_back(std::move(next));
  } while (CompareOp(op));
  return Finish(std::move(chain));
}

// Levels of binary operators: 0: + -   1: ~   2: * / // %   3: **. A chain of one level is one node.
Result<ExprPtr> ExpressionParser::ParseChain(int level) {
  if (level == 4) return ParseUnary(true);
  static constexpr OpToken kOps[] = {{"+", Op::kAdd}, {"-", Op::kSub},       {"~", Op::kAdd}, {"*", Op::kMul},
                                     {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}, {"**", Op::kPow}};
  static constexpr std::pair<int, int> kLevels[] = {{0, 2}, {2, 3}, {3, 7}, {7, 8}};
  const uint32_t line = Current().line;
  ASSIGN_OR_RETURN(ExprPtr node, ParseChain(level + 1));
  ExprPtr chain;
  while (Current().type == TokenType::kOperator) {
    const auto* const begin = kOps + kLevels[level].first;
    const auto* const end = kOps + kLevels[level].second;
    const auto* const found = std::find_if(begin, end, [&](const OpToken& o) { return o.text == Current().text; });
    if (found == end) break;
    Next();
    if (!chain) {
      chain = NewExpr(level == 1 ? ExprKind::kConcat : ExprKind::kArithmetic, line);
      chain->args.push_back(std::move(node));
    }
    chain->ops.push_back(found->op);
    ASSIGN_OR_RETURN(ExprPtr next, ParseChain(level + 1));
    chain->args.push_back(std::move(next));
  }
  if (!chain) return node;
  return Finish(std::move(chain));
}

Result<ExprPtr> ExpressionParser::ParseUnary(bool with_filter) {
  ExprPtr node;
  if (IsOperator("-") || IsOperator("+")) {
    const Nesting nesting(*this);
    RETURN_IF_ERROR(nesting.Check());
    node = NewExpr(IsOperator("-") ? ExprKind::kNeg : ExprKind::kPos, Current().line);
    Next();
    ASSIGN_OR_RETURN(ExprPtr operand, ParseUnary(false));
    node->args.push_back(std::move(operand));
    ASSIGN_OR_RETURN(node, Finish(std::move(node)));
  } else {
    ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (!with_filter) return node;
  return ParseFilterExpression(std::move(node));
}

Result<ExprPtr> ExpressionParser::ParsePrimary() {
  switch (Current().type) {
    case TokenType::kName: return ParseName();
    case TokenType::kString: return ParseString();
    case TokenType::kInteger:
    case TokenType::kFloat: return ParseNumber();
    default: break;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  if (!IsOperator("(")) return Unexpected("an expression");
  Next();
  ASSIGN_OR_RETURN(ExprPtr node, ParseTuple(true, {}, true));
  RETURN_IF_ERROR(ExpectOperator(")"));
  return node;
}

Result<ExprPtr> ExpressionParser::ParseName() {
  const Token& token = Next();
  const std::string_view name = token.text;
  ExprPtr node = NewExpr(ExprKind::kConst, token.line);
  if (name == "true" || name == "True") {
    node->value = Value(true);
  } else if (name == "false" || name == "False") {
    node->value = Value(false);
  } else if (name != "none" && name != "None") {
    node->kind = ExprKind::kName;
    node->text = std::string(name);
    node->symbol = symbols_.Intern(name);
    special_.caller |= name == "caller";
    special_.kwargs |= name == "kwargs";
    special_.varargs |= name == "varargs";
  }
  return node;
}

Result<ExprPtr> ExpressionParser::ParseNumber() {
  const Token& token = Next();
  ExprPtr node = NewExpr(ExprKind::kConst, token.line);
  std::string text = WithoutUnderscores(token.text);
  if (token.type == TokenType::kFloat) {
    double value = 0;
    if (!ParseDouble(text, value)) return Error(token.line, "a number cannot be read");
    node->value = Value(value);
    return node;
  }
  int base = 10;
  if (text.size() > 2 && text[0] == '0' && text[1] > '9') {
    const char letter = static_cast<char>(text[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : 2;
    text.erase(0, 2);
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Error(token.line, "an integer beyond 64 bits is not supported");
  }
  node->value = Value(value);
  return node;
}

Result<ExprPtr> ExpressionParser::ParseString() {
  ExprPtr node = NewExpr(ExprKind::kConst, Current().line);
  std::string text;
  while (Current().type == TokenType::kString) {
    ASSIGN_OR_RETURN(const std::string part, DecodeStringLiteral(Next()));
    text += part;
  }
  node->value = Value(Str::Trusted(std::move(text)));
  return node;
}

Result<ExprPtr> ExpressionParser::ParseList() {
  ExprPtr node = NewExpr(ExprKind::kList, Next().line);
  while (!IsOperator("]")) {
    if (!node->args.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("]")) break;
    ASSIGN_OR_RETURN(ExprPtr item, ParseExpression());
    node->args.push_back(std::move(item));
  }
  Next();
  return Finish(std::move(node));
}

Result<ExprPtr> ExpressionParser::ParseDict() {
  ExprPtr node = NewExpr(ExprKind::kDict, Next().line);
  while (!IsOperator("}")) {
    if (!node->args.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("}")) break;
    ASSIGN_OR_RETURN(ExprPtr key, ParseExpression());
    node->args.push_back(std::move(key));
    RETURN_IF_ERROR(ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    node->args.push_back(std::move(value));
  }
  Next();
  return Finish(std::move(node));
}

bool ExpressionParser::IsTupleEnd(std::string_view end) const {
  const TokenType type = Current().type;
  return type == TokenType::kVariableEnd || type == TokenType::kBlockEnd || IsOperator(")") ||
         (!end.empty() && IsName(end));
}

Result<ExprPtr> ExpressionParser::ParseTuple(bool conditional, std::string_view end, bool parentheses) {
  ExprPtr tuple = NewExpr(ExprKind::kTuple, Current().line);
  bool is_tuple = false;
  while (true) {
    if (!tuple->args.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (IsTupleEnd(end)) break;
    ASSIGN_OR_RETURN(ExprPtr item, ParseExpression(conditional));
    tuple->args.push_back(std::move(item));
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !tuple->args.empty()) return std::move(tuple->args[0]);
  if (!is_tuple && !parentheses) return Unexpected("an expression");
  return Finish(std::move(tuple));
}

Result<ExprPtr> ExpressionParser::ParseTarget(bool with_namespace, std::string_view end) {
  const Nesting nesting(*this);
  RETURN_IF_ERROR(nesting.Check());
  ExprPtr tuple = NewExpr(ExprKind::kTuple, Current().line);
  bool is_tuple = false;
  while (true) {
    if (!tuple->args.empty()) RETURN_IF_ERROR(ExpectOperator(","));
    if (IsTupleEnd(end) || IsOperator("=")) break;
    if (SkipOperator("(")) {
      ASSIGN_OR_RETURN(ExprPtr inner, ParseTarget(with_namespace));
      RETURN_IF_ERROR(ExpectOperator(")"));
      tuple->args.push_back(std::move(inner));
    } else {
      ASSIGN_OR_RETURN(const Token* token, ExpectName());
      ExprPtr name = NewExpr(ExprKind::kName, token->line);
      static constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False", "None"};
      if (std::find(std::begin(kReserved), std::end(kReserved), token->text) != std::end(kReserved)) {
        return Error(token->line, fmt::format("cannot assign to '{}'", token->text));
      }
      name->text = std::string(token->text);
      name->symbol = symbols_.Intern(token->text);
      if (with_namespace && SkipOperator(".")) {
        ASSIGN_OR_RETURN(const Token* attribute, ExpectName());
        name->kind = ExprKind::kNamespaceRef;
        name->text = std::string(attribute->text);
      }
      tuple->args.push_back(std::move(name));
    }
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  if (tuple->args.empty()) return Unexpected("a name to assign to");
  if (!is_tuple) return std::move(tuple->args[0]);
  return Finish(std::move(tuple));
}

}  // namespace kvasir::jinja
