#include "text/jinja_parser.h"

#include <algorithm>

#include "text/jinja_expression_parser.h"

namespace kvasir::jinja {
namespace {

using StmtPtr = std::unique_ptr<Stmt>;

StmtPtr NewStmt(StmtKind kind, uint32_t line) {
  auto stmt = std::make_unique<Stmt>();
  stmt->kind = kind;
  stmt->line = line;
  return stmt;
}

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Result<Body> ParseTemplate() {
    ASSIGN_OR_RETURN(Body body, ParseBody({}));
    if (Current().type != TokenType::kEnd) return Unexpected("the end of the template");
    return body;
  }

 private:
  // Statements up to `{% end…`, which stays current (at its name), or to the end of the template.
  Result<Body> ParseBody(Words ends) {
    const Nesting nesting(*this);
    RETURN_IF_ERROR(nesting.Check());
    Body body;
    while (true) {
      const Token& token = Current();
      if (token.type == TokenType::kEnd) {
        if (ends.size() == 0) return body;
        return Error(token.line, fmt::format("unexpected end of template, '{}' is missing", *(ends.end() - 1)));
      }
      if (token.type == TokenType::kData) {
        StmtPtr stmt = NewStmt(StmtKind::kText, token.line);
        stmt->text = Str::Trusted(std::string(Next().text));
        body.push_back(std::move(stmt));
      } else if (token.type == TokenType::kVariableBegin) {
        StmtPtr stmt = NewStmt(StmtKind::kPrint, Next().line);
        ASSIGN_OR_RETURN(ExprPtr expr, ParseTuple(true));
        stmt->exprs.push_back(std::move(expr));
        if (Current().type != TokenType::kVariableEnd) return Unexpected("'}}'");
        Next();
        body.push_back(std::move(stmt));
      } else {
        Next();  // {%
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return IsName(end); })) return body;
        ASSIGN_OR_RETURN(StmtPtr stmt, ParseStatement());
        RETURN_IF_ERROR(ExpectBlockEnd());
        body.push_back(std::move(stmt));
      }
    }
  }

  Status ExpectBlockEnd() {
    if (Current().type != TokenType::kBlockEnd) return Unexpected("'%}'");
    Next();
    return OkStatus();
  }

  // `%}` body `{% end`; an optional colon comes before, as in Python.
  Result<Body> ParseBlock(Words ends) {
    SkipOperator(":");
    RETURN_IF_ERROR(ExpectBlockEnd());
    return ParseBody(ends);
  }

  // The same where only one end is possible, which is then skipped.
  Result<Body> ParseWholeBlock(std::string_view end) {
    ASSIGN_OR_RETURN(Body body, ParseBlock({end}));
    Next();
    return body;
  }

  Result<StmtPtr> ParseStatement() {
    if (Current().type != TokenType::kName) return Unexpected("the name of a statement");
    const Token& tag = Next();
    if (tag.text == "if") return ParseIf(tag.line);
    if (tag.text == "for") return ParseFor(tag.line);
    if (tag.text == "set") return ParseSet(tag.line);
    if (tag.text == "macro") return ParseMacro(tag.line);
    if (tag.text == "call") return ParseCall(tag.line);
    if (tag.text == "filter") return ParseFilterBlock(tag.line);
    if (tag.text == "with") return ParseWith(tag.line);
    if (tag.text == "print") return ParsePrint(tag.line);
    if (tag.text == "generation") {
      StmtPtr stmt = NewStmt(StmtKind::kScope, tag.line);
      ASSIGN_OR_RETURN(Body body, ParseWholeBlock("endgeneration"));
      stmt->bodies.push_back(std::move(body));
      return stmt;
    }
    if (tag.text == "break" || tag.text == "continue") {
      if (loops_ == 0) return Error(tag.line, fmt::format("'{}' outside of a loop", tag.text));
      return NewStmt(tag.text == "break" ? StmtKind::kBreak : StmtKind::kContinue, tag.line);
    }
    static constexpr std::string_view kOther[] = {"block", "extends", "include", "import", "from", "autoescape"};
    if (std::find(std::begin(kOther), std::end(kOther), tag.text) != std::end(kOther)) {
      return Unsupported("chat template, line {}: the statement '{}' is not supported in chat templates", tag.line,
                         tag.text);
    }
    return Error(tag.line, fmt::format("unknown statement '{}'", tag.text.substr(0, 60)));
  }

  Result<StmtPtr> ParseIf(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kIf, line);
    while (true) {
      ASSIGN_OR_RETURN(ExprPtr test, ParseTuple(false));
      stmt->exprs.push_back(std::move(test));
      ASSIGN_OR_RETURN(Body body, ParseBlock({"elif", "else", "endif"}));
      stmt->bodies.push_back(std::move(body));
      const std::string_view end = Next().text;
      if (end == "elif") continue;
      if (end == "else") {
        ASSIGN_OR_RETURN(Body otherwise, ParseWholeBlock("endif"));
        stmt->bodies.push_back(std::move(otherwise));
      }
      return stmt;
    }
  }

  Result<StmtPtr> ParseFor(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kFor, line);
    ASSIGN_OR_RETURN(stmt->target, ParseTarget(false, "in"));
    if (Assigns(*stmt->target, "loop")) return Error(line, "cannot assign to the special variable 'loop'");
    if (!SkipName("in")) return Unexpected("'in'");
    ASSIGN_OR_RETURN(ExprPtr iterable, ParseTuple(false, "recursive"));
    ExprPtr filter;
    if (SkipName("if")) {
      ASSIGN_OR_RETURN(filter, ParseExpression());
    }
    stmt->exprs.push_back(std::move(iterable));
    stmt->exprs.push_back(std::move(filter));
    stmt->recursive = SkipName("recursive");
    ++loops_;
    auto body = ParseBlock({"else", "endfor"});
    --loops_;
    RETURN_IF_ERROR(body.status());
    stmt->bodies.push_back(*std::move(body));
    Body otherwise;
    if (Next().text == "else") {
      ASSIGN_OR_RETURN(otherwise, ParseWholeBlock("endfor"));
    }
    stmt->bodies.push_back(std::move(otherwise));
    return stmt;
  }

  static bool Assigns(const Expr& target, std::string_view name) {
    if (target.kind == ExprKind::kName) return target.text == name;
    return std::any_of(target.args.begin(), target.args.end(),
                       [&](const ExprPtr& part) { return Assigns(*part, name); });
  }

  Result<StmtPtr> ParseSet(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kSet, line);
    ASSIGN_OR_RETURN(stmt->target, ParseTarget(true));
    if (loops_ > 0 && Assigns(*stmt->target, "loop")) {
      return Error(line, "cannot assign to the special variable 'loop' in a loop");
    }
    if (SkipOperator("=")) {
      ASSIGN_OR_RETURN(ExprPtr value, ParseTuple(true));
      stmt->exprs.push_back(std::move(value));
      return stmt;
    }
    stmt->kind = StmtKind::kSetBlock;
    ASSIGN_OR_RETURN(ExprPtr filter, ParseFilter(nullptr, false));
    stmt->exprs.push_back(std::move(filter));
    ASSIGN_OR_RETURN(Body body, ParseWholeBlock("endset"));
    stmt->bodies.push_back(std::move(body));
    return stmt;
  }

  Status ParseSignature(MacroDef& macro) {
    RETURN_IF_ERROR(ExpectOperator("("));
    while (!IsOperator(")")) {
      if (!macro.parameters.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      ASSIGN_OR_RETURN(const Token* name, ExpectName());
      macro.parameters.emplace_back(symbols().Intern(name->text), std::string(name->text));
      if (SkipOperator("=")) {
        ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
        macro.defaults.push_back(std::move(value));
      } else if (!macro.defaults.empty()) {
        return Error(name->line, "a parameter without default follows one with a default");
      }
    }
    Next();
    return OkStatus();
  }

  // A macro's body is a function of its own: loops around it do not count, and the special names it mentions are its.
  Status ParseMacroBody(MacroDef& macro, std::string_view end) {
    const SpecialNames outer = std::exchange(special_, {});
    const int loops = std::exchange(loops_, 0);
    auto body = ParseWholeBlock(end);
    loops_ = loops;
    RETURN_IF_ERROR(body.status());
    macro.body = *std::move(body);
    macro.uses_caller = special_.caller;
    macro.uses_kwargs = special_.kwargs;
    macro.uses_varargs = special_.varargs;
    special_ = {outer.caller || special_.caller, outer.kwargs || special_.kwargs, outer.varargs || special_.varargs};
    return OkStatus();
  }

  Result<StmtPtr> ParseMacro(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kMacro, line);
    stmt->macro = std::make_unique<MacroDef>();
    ASSIGN_OR_RETURN(const Token* name, ExpectName());
    stmt->macro->name = std::string(name->text);
    stmt->macro->symbol = symbols().Intern(name->text);
    RETURN_IF_ERROR(ParseSignature(*stmt->macro));
    RETURN_IF_ERROR(ParseMacroBody(*stmt->macro, "endmacro"));
    return stmt;
  }

  Result<StmtPtr> ParseCall(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kCallBlock, line);
    stmt->macro = std::make_unique<MacroDef>();
    stmt->macro->name = "caller";
    if (IsOperator("(")) RETURN_IF_ERROR(ParseSignature(*stmt->macro));
    ASSIGN_OR_RETURN(ExprPtr call, ParseExpression());
    if (call->kind != ExprKind::kCall) return Error(line, "expected a call after 'call'");
    stmt->exprs.push_back(std::move(call));
    RETURN_IF_ERROR(ParseMacroBody(*stmt->macro, "endcall"));
    return stmt;
  }

  Result<StmtPtr> ParseFilterBlock(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kFilterBlock, line);
    ASSIGN_OR_RETURN(ExprPtr filter, ParseFilter(nullptr, true));
    stmt->exprs.push_back(std::move(filter));
    ASSIGN_OR_RETURN(Body body, ParseWholeBlock("endfilter"));
    stmt->bodies.push_back(std::move(body));
    return stmt;
  }

  Result<StmtPtr> ParseWith(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kWith, line);
    while (Current().type != TokenType::kBlockEnd) {
      if (!stmt->targets.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      ASSIGN_OR_RETURN(const Token* token, ExpectName());
      auto target = std::make_unique<Expr>();
      target->kind = ExprKind::kName;
      target->line = token->line;
      target->text = std::string(token->text);
      target->symbol = symbols().Intern(token->text);
      stmt->targets.push_back(std::move(target));
      RETURN_IF_ERROR(ExpectOperator("="));
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      stmt->exprs.push_back(std::move(value));
    }
    ASSIGN_OR_RETURN(Body body, ParseWholeBlock("endwith"));
    stmt->bodies.push_back(std::move(body));
    return stmt;
  }

  Result<StmtPtr> ParsePrint(uint32_t line) {
    StmtPtr stmt = NewStmt(StmtKind::kPrint, line);
    while (Current().type != TokenType::kBlockEnd) {
      if (!stmt->exprs.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      ASSIGN_OR_RETURN(ExprPtr expr, ParseExpression());
      stmt->exprs.push_back(std::move(expr));
    }
    return stmt;
  }

  int loops_ = 0;  // loops around the current place, within the same macro
};

}  // namespace

Result<std::shared_ptr<const Template>> Parse(std::string_view source, int max_depth) {
  const std::string normalized = NormalizeSource(source);
  ASSIGN_OR_RETURN(const std::vector<Token> tokens, Tokenize(normalized));
  auto result = std::make_shared<Template>();
  ASSIGN_OR_RETURN(result->body, Parser(tokens, result->symbols, max_depth).ParseTemplate());
  return std::shared_ptr<const Template>(std::move(result));
}

}  // namespace kvasir::jinja
