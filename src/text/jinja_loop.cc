#include "text/jinja_loop.h"

#include <utility>

namespace kvasir::jinja {

/// loop.cycle and loop.changed.
class LoopMethod : public Object {
 public:
  LoopMethod(std::shared_ptr<Loop> loop, bool cycle) : loop_(std::move(loop)), cycle_(cycle) {}
  std::string_view type_name() const override { return "method"; }
  bool callable() const override { return true; }
  int depth() const override { return loop_->depth() + 1; }
  Result<Value> Call(Runtime& runtime, const CallArgs& args) override {
    if (!args.named.empty()) return InvalidData("loop.cycle and loop.changed take no keyword arguments");
    return cycle_ ? loop_->Cycle(args) : loop_->Changed(runtime, args);
  }

 private:
  std::shared_ptr<Loop> loop_;
  bool cycle_;
};

Loop::Loop(Interpreter& interpreter, const Stmt& stmt, ScopePtr around, std::vector<Value> items, int depth,
           int nesting)
    : interpreter_(interpreter),
      stmt_(stmt),
      around_(std::move(around)),
      items_(std::move(items)),
      filtered_(stmt.exprs[1] != nullptr),
      depth_(depth),
      nesting_(nesting) {}

void Loop::End() {
  around_.reset();
  last_changed_.reset();
}

Result<bool> Loop::Advance() {
  ASSIGN_OR_RETURN(const bool more, Peek());
  if (!more) return false;
  ++index0_;
  before_ = std::exchange(current_, std::exchange(after_, std::nullopt));
  return true;
}

// Finds the next item that passes the filter.
Result<bool> Loop::Peek() {
  while (!after_ && next_ < items_.size()) {
    const Value& item = items_[next_++];
    bool passes = true;
    if (filtered_) {
      if (!around_) return false;
      ASSIGN_OR_RETURN(passes, interpreter_.PassesFilter(stmt_, around_, item));
    }
    if (passes) after_ = item;
  }
  return after_.has_value();
}

// Filters all that is left, to know how much it is.
Result<int64_t> Loop::Length() {
  if (filtered_) {
    std::vector<Value> rest;
    while (true) {
      ASSIGN_OR_RETURN(const bool more, Peek());
      if (!more) break;
      rest.push_back(*std::exchange(after_, std::nullopt));
    }
    skipped_ = index0_ + 1;
    items_ = std::move(rest);
    next_ = 0;
    filtered_ = false;
  }
  return skipped_ + static_cast<int64_t>(items_.size());
}

Result<Value> Loop::Call(Runtime&, const CallArgs& args) {
  if (!stmt_.recursive) return InvalidData("the loop must have the 'recursive' marker to be called recursively");
  if (!around_) return InvalidData("a loop was called after its end");
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("loop", args, {"iterable"}, 1));
  ASSIGN_OR_RETURN(Str text, interpreter_.RecurseLoop(stmt_, *bound[0], around_, depth_ + 1));
  return Value(std::move(text));
}

Result<Value> Loop::Cycle(const CallArgs& args) const {
  if (args.positional.empty()) return InvalidData("no items for cycling given");
  return args.positional[static_cast<size_t>(index0_) % args.positional.size()];
}

Result<Value> Loop::Changed(Runtime& runtime, const CallArgs& args) {
  if (!around_) return InvalidData("loop.changed was called after the loop's end");
  ASSIGN_OR_RETURN(Value now, MakeSequence(runtime.budget(), args.positional, SequenceKind::kTuple));
  if (last_changed_) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime.budget(), *last_changed_, now));
    if (equal) return Value(false);
  }
  last_changed_ = std::move(now);
  return Value(true);
}

Result<Value> Loop::Attribute(Runtime& runtime, std::string_view name) {
  if (name == "index0") return Value(index0_);
  if (name == "index") return Value(index0_ + 1);
  if (name == "first") return Value(index0_ == 0);
  if (name == "depth") return Value(int64_t{depth_} + 1);
  if (name == "depth0") return Value(int64_t{depth_});
  if (name == "previtem") return index0_ > 0 ? *before_ : Value::MakeUndefined("there is no previous item");
  if (name == "last" || name == "nextitem") {
    ASSIGN_OR_RETURN(const bool more, Peek());
    if (name == "last") return Value(!more);
    return more ? *after_ : Value::MakeUndefined("there is no next item");
  }
  if (name == "length" || name == "revindex" || name == "revindex0") {
    ASSIGN_OR_RETURN(const int64_t length, Length());
    return Value(name == "length" ? length : name == "revindex" ? length - index0_ : length - index0_ - 1);
  }
  if (name != "cycle" && name != "changed") return Object::Attribute(runtime, name);
  if (nesting_ >= kMaxValueDepth) return ResourceExhausted("values are nested too deep");
  return Value(ObjectPtr(std::make_shared<LoopMethod>(shared_from_this(), name == "cycle")));
}

}  // namespace kvasir::jinja
