// What follows a primary expression: attributes, indices, calls, filters and tests.
#include <algorithm>

#include "text/jinja_expression_parser.h"

namespace kvasir::jinja {

Result<ExprPtr> ExpressionParser::ParsePostfix(ExprPtr node) {
  while (true) {
    if (IsOperator(".") || IsOperator("[")) {
      ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (IsOperator("(")) {
      ExprPtr call = NewExpr(ExprKind::kCall, Current().line);
      call->args.push_back(std::move(node));
      RETURN_IF_ERROR(ParseCallArgs(*call));
      ASSIGN_OR_RETURN(node, Finish(std::move(call)));
    } else {
      return node;
    }
  }
}

Result<ExprPtr> ExpressionParser::ParseFilterExpression(ExprPtr node) {
  while (true) {
    if (IsOperator("|")) {
      ASSIGN_OR_RETURN(node, ParseFilter(std::move(node), false));
    } else if (IsName("is")) {
      ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (IsOperator("(")) {
      ExprPtr call = NewExpr(ExprKind::kCall, Current().line);
      call->args.push_back(std::move(node));
      RETURN_IF_ERROR(ParseCallArgs(*call));
      ASSIGN_OR_RETURN(node, Finish(std::move(call)));
    } else {
      return node;
    }
  }
}

Result<ExprPtr> ExpressionParser::ParseSubscript(ExprPtr node) {
  const uint32_t line = Current().line;
  if (SkipOperator("[")) return ParseIndex(std::move(node), line);
  Next();
  if (Current().type == TokenType::kName) {
    ExprPtr attribute = NewExpr(ExprKind::kGetAttr, line);
    attribute->text = std::string(Next().text);
    attribute->args.push_back(std::move(node));
    return Finish(std::move(attribute));
  }
  if (Current().type != TokenType::kInteger) return Unexpected("a name or number after '.'");
  ExprPtr item = NewExpr(ExprKind::kGetItem, line);
  item->args.push_back(std::move(node));
  ASSIGN_OR_RETURN(ExprPtr index, ParseNumber());
  item->args.push_back(std::move(index));
  return Finish(std::move(item));
}

// After `[`: an index, or a slice. (Several of them, as in x[1, 2], index nothing that templates have.)
Result<ExprPtr> ExpressionParser::ParseIndex(ExprPtr node, uint32_t line) {
  ExprPtr item = NewExpr(ExprKind::kGetItem, line);
  item->args.push_back(std::move(node));
  ExprPtr parts[3];
  int colons = 0;
  while (!IsOperator("]")) {
    if (IsOperator(":") && colons < 2) {
      Next();
      ++colons;
    } else {
      if (parts[colons]) return Unexpected("']'");
      ASSIGN_OR_RETURN(parts[colons], ParseExpression());
    }
  }
  Next();
  if (colons == 0) {
    if (!parts[0]) return Error(line, "an index is missing between '[' and ']'");
    item->args.push_back(std::move(parts[0]));
    return Finish(std::move(item));
  }
  item->kind = ExprKind::kSlice;
  for (ExprPtr& part : parts) item->args.push_back(std::move(part));
  return Finish(std::move(item));
}

Status ExpressionParser::ParseCallArgs(Expr& call) {
  const uint32_t line = Current().line;
  RETURN_IF_ERROR(ExpectOperator("("));
  const auto invalid = [&] { return Error(line, "invalid order of arguments in a call"); };
  bool first = true;
  while (!IsOperator(")")) {
    if (!first) {
      RETURN_IF_ERROR(ExpectOperator(","));
      if (IsOperator(")")) break;
    }
    first = false;
    if (SkipOperator("*")) {
      if (call.star || call.star_star) return invalid();
      ASSIGN_OR_RETURN(call.star, ParseExpression());
    } else if (SkipOperator("**")) {
      if (call.star_star) return invalid();
      ASSIGN_OR_RETURN(call.star_star, ParseExpression());
    } else if (Current().type == TokenType::kName && Look().type == TokenType::kOperator && Look().text == "=") {
      if (call.star_star) return invalid();
      std::string name(Next().text);
      Next();
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (call.star || call.star_star || !call.named.empty()) return invalid();
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      call.args.push_back(std::move(value));
    }
  }
  Next();
  std::vector<std::string_view> names;
  names.reserve(call.named.size());
  for (const auto& [name, value] : call.named) names.push_back(name);
  std::sort(names.begin(), names.end());
  const auto repeated = std::adjacent_find(names.begin(), names.end());
  if (repeated != names.end()) return Error(line, fmt::format("the keyword argument '{}' is repeated", *repeated));
  return OkStatus();
}

Result<std::string> ExpressionParser::ParseDottedName() {
  ASSIGN_OR_RETURN(const Token* first, ExpectName());
  std::string name(first->text);
  while (SkipOperator(".")) {
    ASSIGN_OR_RETURN(const Token* next, ExpectName());
    name += '.';
    name += next->text;
  }
  return name;
}

Result<ExprPtr> ExpressionParser::ParseFilter(ExprPtr input, bool start_inline) {
  while (IsOperator("|") || start_inline) {
    if (!start_inline) Next();
    start_inline = false;
    ExprPtr filter = NewExpr(ExprKind::kFilter, Current().line);
    ASSIGN_OR_RETURN(filter->text, ParseDottedName());
    filter->args.push_back(std::move(input));
    if (IsOperator("(")) RETURN_IF_ERROR(ParseCallArgs(*filter));
    ASSIGN_OR_RETURN(input, Finish(std::move(filter)));
  }
  return input;
}

Result<ExprPtr> ExpressionParser::ParseTest(ExprPtr node) {
  const uint32_t line = Next().line;
  const bool negated = SkipName("not");
  ExprPtr test = NewExpr(ExprKind::kTest, line);
  ASSIGN_OR_RETURN(test->text, ParseDottedName());
  test->args.push_back(std::move(node));
  const TokenType type = Current().type;
  const bool operand = (type == TokenType::kName && !IsName("else") && !IsName("or") && !IsName("and")) ||
                       type == TokenType::kString || type == TokenType::kInteger || type == TokenType::kFloat ||
                       IsOperator("[") || IsOperator("{");
  if (IsOperator("(")) {
    RETURN_IF_ERROR(ParseCallArgs(*test));
  } else if (operand) {
    if (IsName("is")) return Error(line, "tests cannot be chained with 'is'");
    ASSIGN_OR_RETURN(ExprPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    test->args.push_back(std::move(argument));
  }
  ASSIGN_OR_RETURN(test, Finish(std::move(test)));
  if (!negated) return test;
  ExprPtr inverse = NewExpr(ExprKind::kNot, line);
  inverse->args.push_back(std::move(test));
  return Finish(std::move(inverse));
}

}  // namespace kvasir::jinja
