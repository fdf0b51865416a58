// Recursive descent over the tokens of one template: expressions, and the cursor that statements share.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace kvasir::jinja {

/// Parses expressions with Jinja's precedences, from `or` down: not, comparisons, + -, ~, * / // %, ** (from left to
/// right), signs, postfixes and filters. Nesting is bounded by max_depth; chains of one operator are not nesting.
class ExpressionParser {
 public:
  /// REQUIRES: tokens end with kEnd; all arguments outlive the parser.
  ExpressionParser(std::span<const Token> tokens, SymbolTable& symbols, int max_depth)
      : tokens_(tokens), symbols_(symbols), max_depth_(max_depth) {}

 protected:
  using Words = std::initializer_list<std::string_view>;

  const Token& Current() const { return tokens_[position_]; }
  const Token& Look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  const Token& Next();
  bool IsOperator(std::string_view text) const;
  bool IsName(std::string_view text) const;
  bool SkipOperator(std::string_view text);
  bool SkipName(std::string_view text);
  Status ExpectOperator(std::string_view text);
  Result<const Token*> ExpectName();
  Status Error(uint32_t line, std::string_view what) const;
  Status Unexpected(std::string_view wanted) const;

  /// One expression; without `conditional`, `a if b else c` ends before the `if`.
  Result<ExprPtr> ParseExpression(bool conditional = true);
  /// An expression, or several separated by commas. `end`: a name that ends it.
  Result<ExprPtr> ParseTuple(bool conditional, std::string_view end = {}, bool parentheses = false);
  /// What set, for and with assign to: names, tuples of names, and attributes of namespaces.
  Result<ExprPtr> ParseTarget(bool with_namespace, std::string_view end = {});
  /// `| name(args)…` or, with start_inline, `name(args) | …` on nothing yet; null where there is none.
  Result<ExprPtr> ParseFilter(ExprPtr input, bool start_inline);

  /// Counts one level of nesting while it lives.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser) : parser_(parser) { ++parser_.depth_; }
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    Status Check() const;

   private:
    ExpressionParser& parser_;
  };

  SymbolTable& symbols() { return symbols_; }

  // Which of the special names of macros the expressions since the last reset mention.
  struct SpecialNames {
    bool caller = false, kwargs = false, varargs = false;
  };
  SpecialNames special_;

 private:
  struct OpToken {
    std::string_view text;
    Op op;
  };

  Result<ExprPtr> ParseOr();
  Result<ExprPtr> ParseAnd();
  Result<ExprPtr> ParseNot();
  Result<ExprPtr> ParseCompare();
  Result<ExprPtr> ParseChain(int level);
  Result<ExprPtr> ParseUnary(bool with_filter);
  Result<ExprPtr> ParsePrimary();
  Result<ExprPtr> ParseName();
  Result<ExprPtr> ParseNumber();
  Result<ExprPtr> ParseString();
  Result<ExprPtr> ParseList();
  Result<ExprPtr> ParseDict();
  Result<ExprPtr> ParsePostfix(ExprPtr node);
  Result<ExprPtr> ParseFilterExpression(ExprPtr node);
  Result<ExprPtr> ParseSubscript(ExprPtr node);
  Result<ExprPtr> ParseIndex(ExprPtr node, uint32_t line);
  Result<ExprPtr> ParseTest(ExprPtr node);
  Result<std::string> ParseDottedName();
  Status ParseCallArgs(Expr& call);
  bool IsTupleEnd(std::string_view end) const;
  bool CompareOp(Op& op);

  static ExprPtr NewExpr(ExprKind kind, uint32_t line) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = line;
    return expr;
  }
  Result<ExprPtr> Finish(ExprPtr node) const;

  std::span<const Token> tokens_;
  SymbolTable& symbols_;
  int max_depth_;
  size_t position_ = 0;
  int depth_ = 0;
};

}  // namespace kvasir::jinja
