// The functions that every template can call.
#include <algorithm>
#include <ctime>
#include <utility>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace kvasir::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

class Function : public Object {
 public:
  using Fn = Result<Value> (*)(Runtime&, const CallArgs&);
  explicit Function(Fn fn) : fn_(fn) {}
  std::string_view type_name() const override { return "function"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime& runtime, const CallArgs& args) override { return fn_(runtime, args); }

 private:
  Fn fn_;
};

Result<Value> Range(Runtime& runtime, const CallArgs& args) {
  if (!args.named.empty()) return InvalidData("range() takes no keyword arguments");
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("range", args, {"start", "stop", "step"}, 1));
  ASSIGN_OR_RETURN(int64_t start, IntArg("range", bound[0], 0));
  ASSIGN_OR_RETURN(int64_t stop, IntArg("range", bound[1], 0));
  ASSIGN_OR_RETURN(const int64_t step, IntArg("range", bound[2], 1));
  if (!bound[1]) stop = std::exchange(start, 0);
  if (step == 0) return InvalidData("range() arg 3 must not be zero");
  // Unsigned differences cannot overflow, and are right whenever the range is not empty.
  const bool empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t span = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                 : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : ~static_cast<uint64_t>(step) + 1;
  const uint64_t count = empty ? 0 : (span - 1) / stride + 1;
  if (count > kMaxRange) return ResourceExhausted("range() is limited to {} elements in templates", kMaxRange);
  RETURN_IF_ERROR(runtime.budget().Charge(kElementCost * count));
  auto sequence = std::make_shared<Sequence>();
  sequence->kind = SequenceKind::kRange;
  sequence->label =
      step == 1 ? fmt::format("range({}, {})", start, stop) : fmt::format("range({}, {}, {})", start, stop, step);
  sequence->items.reserve(count);
  for (int64_t i = 0; std::cmp_less(i, count); ++i) sequence->items.emplace_back(start + i * step);
  return Value(SequencePtr(std::move(sequence)));
}

// dict(mapping or pairs, **named), shared by dict() and namespace().
Result<Dict> ReadDict(Runtime& runtime, std::string_view function, const CallArgs& args) {
  Dict dict;
  if (args.positional.size() > 1) return InvalidData("{}() takes at most 1 positional argument", function);
  for (const Value& source : args.positional) {
    if (source.dict()) {
      dict = *source.dict();
      continue;
    }
    ASSIGN_OR_RETURN(const std::vector<Value> pairs, ToItems(runtime, source));
    for (const Value& pair : pairs) {
      ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, pair));
      if (items.size() != 2)
        return InvalidData("{}(): an element has length {}; 2 is required", function, items.size());
      RETURN_IF_ERROR(dict.Set(items[0], items[1]));
    }
  }
  for (const auto& [name, value] : args.named) RETURN_IF_ERROR(dict.Set(MakeStr(name), value));
  return dict;
}

Result<Value> MakeDictFunction(Runtime& runtime, const CallArgs& args) {
  ASSIGN_OR_RETURN(Dict dict, ReadDict(runtime, "dict", args));
  return MakeDict(runtime.budget(), std::move(dict));
}

Result<Value> MakeNamespace(Runtime& runtime, const CallArgs& args) {
  ASSIGN_OR_RETURN(const Dict dict, ReadDict(runtime, "namespace", args));
  ASSIGN_OR_RETURN(const std::shared_ptr<Namespace> space, runtime.NewNamespace());
  for (const auto& [key, value] : dict.entries()) {
    if (!key.str()) return InvalidData("namespace(): names must be strings");
    RETURN_IF_ERROR(space->Set(runtime.budget(), key.str()->view(), value));
  }
  return Value(ObjectPtr(space));
}

// cycler("odd", "even"): next() and current in turn.
class Cycler : public Object, public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(Value items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  int depth() const override { return items_.Depth() + 1; }
  Result<Value> Attribute(Runtime& runtime, std::string_view name) override;
  const std::vector<Value>& items() const { return items_.sequence()->items; }
  size_t position = 0;

 private:
  Value items_;
};

// cycler.next and cycler.reset, bound to their cycler.
class CyclerMethod : public Object {
 public:
  CyclerMethod(std::shared_ptr<Cycler> cycler, bool next) : cycler_(std::move(cycler)), next_(next) {}
  std::string_view type_name() const override { return "method"; }
  bool callable() const override { return true; }
  int depth() const override { return cycler_->depth() + 1; }
  Result<Value> Call(Runtime&, const CallArgs& args) override {
    RETURN_IF_ERROR(BindArgs("cycler", args, {}).status());
    if (!next_) {
      cycler_->position = 0;
      return Value();
    }
    const Value value = cycler_->items()[cycler_->position];
    cycler_->position = (cycler_->position + 1) % cycler_->items().size();
    return value;
  }

 private:
  std::shared_ptr<Cycler> cycler_;
  bool next_;
};

Result<Value> Cycler::Attribute(Runtime& runtime, std::string_view name) {
  if (name == "current") return items()[position];
  if (name != "next" && name != "reset") return Object::Attribute(runtime, name);
  if (depth() >= kMaxValueDepth) return ResourceExhausted("values are nested too deep");
  return Value(ObjectPtr(std::make_shared<CyclerMethod>(shared_from_this(), name == "next")));
}

Result<Value> MakeCycler(Runtime& runtime, const CallArgs& args) {
  if (args.positional.empty() || !args.named.empty()) return InvalidData("cycler(): at least one item is required");
  ASSIGN_OR_RETURN(Value items, MakeSequence(runtime.budget(), args.positional));
  if (items.Depth() >= kMaxValueDepth - 1) return ResourceExhausted("values are nested too deep");
  return Value(ObjectPtr(std::make_shared<Cycler>(std::move(items))));
}

// joiner(", "): nothing at the first call, the separator ever after.
class Joiner : public Object {
 public:
  explicit Joiner(Str separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime&, const CallArgs& args) override {
    RETURN_IF_ERROR(BindArgs("joiner", args, {}).status());
    return Value(std::exchange(used_, true) ? separator_ : Str());
  }

 private:
  Str separator_;
  bool used_ = false;
};

Result<Value> MakeJoiner(Runtime& runtime, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("joiner", args, {"sep"}));
  ASSIGN_OR_RETURN(Str separator, StrArg(runtime, "joiner", bound[0], ", "));
  return Value(ObjectPtr(std::make_shared<Joiner>(std::move(separator))));
}

Result<Value> RaiseException(Runtime& runtime, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("raise_exception", args, {"message"}, 1));
  ASSIGN_OR_RETURN(const Str message, ToStr(runtime.budget(), *bound[0]));
  return InvalidArgument("{}", message.view());
}

Result<Value> StrftimeNow(Runtime& runtime, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("strftime_now", args, {"format"}, 1));
  ASSIGN_OR_RETURN(const Str format, StrArg(runtime, "strftime_now", bound[0], ""));
  RETURN_IF_ERROR(runtime.budget().Charge(64 + format.size()));
  if (format.empty()) return Value(Str());
  // A datetime without time zone prints %z and %Z as nothing; fractions of seconds are not kept.
  std::string pattern;
  const std::string_view text = format.view();
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (text[i] != '%' || next == '\0') {
      pattern += text[i];
      continue;
    }
    ++i;
    if (next == 'f') pattern += "000000";
    if (next != 'f' && next != 'z' && next != 'Z') pattern.append({'%', next});
  }
  if (pattern.find('\0') != std::string::npos) return InvalidData("strftime_now: the format holds a zero byte");
  const std::time_t now = runtime.now() >= 0 ? static_cast<std::time_t>(runtime.now()) : std::time(nullptr);
  std::tm local{};
  if (!localtime_r(&now, &local)) return InvalidData("strftime_now: the time is out of range");
  constexpr size_t kMaxTime = 4096;
  std::string out(kMaxTime, '\0');
  pattern += '.';  // so that an empty result is not taken for one that does not fit
  const size_t length = std::strftime(out.data(), out.size(), pattern.c_str(), &local);
  if (length == 0) return ResourceExhausted("strftime_now: the result is longer than {} bytes", kMaxTime);
  out.resize(length - 1);
  return Value(Str::Trusted(ReplaceInvalidUtf8(out)));
}

}  // namespace

std::vector<std::pair<std::string_view, Value>> Globals() {
  const auto function = [](Function::Fn fn) { return Value(ObjectPtr(std::make_shared<Function>(fn))); };
  return {{"range", function(Range)},
          {"dict", function(MakeDictFunction)},
          {"namespace", function(MakeNamespace)},
          {"cycler", function(MakeCycler)},
          {"joiner", function(MakeJoiner)},
          {"raise_exception", function(RaiseException)},
          {"strftime_now", function(StrftimeNow)}};
}

}  // namespace kvasir::jinja
