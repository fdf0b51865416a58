// The variable `loop` of for loops.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "text/jinja_interpreter.h"

namespace kvasir::jinja {

/// `loop`, and the source of the loop's items. As in Jinja, the filter of a loop runs only when the next item is
/// wanted, so that it sees what the body did to namespaces.
class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  /// items: what is iterated over. around: the scope of the statement. depth: of recursion, from 0.
  /// nesting: the depth of the value that holds the items.
  Loop(Interpreter& interpreter, const Stmt& stmt, ScopePtr around, std::vector<Value> items, int depth, int nesting);

  std::string_view type_name() const override { return "LoopContext"; }
  bool callable() const override { return true; }
  int depth() const override { return nesting_; }
  Result<Value> Call(Runtime& runtime, const CallArgs& args) override;
  Result<Value> Attribute(Runtime& runtime, std::string_view name) override;

  /// Moves to the next item; false at the end.
  Result<bool> Advance();
  /// REQUIRES: Advance() returned true.
  const Value& current() const { return *current_; }
  /// Lets go of what could refer back to this loop. The template may keep the object, but no longer call it.
  void End();

 private:
  friend class LoopMethod;

  Result<bool> Peek();
  Result<int64_t> Length();
  Result<Value> Cycle(const CallArgs& args) const;
  Result<Value> Changed(Runtime& runtime, const CallArgs& args);

  Interpreter& interpreter_;
  const Stmt& stmt_;
  ScopePtr around_;  // null once the loop has ended
  std::vector<Value> items_;
  size_t next_ = 0;
  bool filtered_;        // items_ still hold what the filter will drop
  int64_t skipped_ = 0;  // items that passed before items_ was replaced by the rest
  int64_t index0_ = -1;
  std::optional<Value> before_, current_, after_;
  std::optional<Value> last_changed_;
  int depth_;
  int nesting_;
};

}  // namespace kvasir::jinja
