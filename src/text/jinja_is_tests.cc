// What can stand after `is`.
#include <unordered_map>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace kvasir::jinja {
namespace {

// A test of the value alone.
template <bool (*kTest)(const Value&)>
Result<bool> Simple(Runtime&, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("test", args, {}).status());
  return kTest(input);
}

template <Op kOp>
Result<bool> Comparison(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("test", args, {"other"}, 1));
  return Compare(runtime, kOp, input, *bound[0]);
}

Result<Value> Remainder(Runtime& runtime, const Value& input, int64_t divisor) {
  if (input.is_undefined()) return UndefinedError(input);
  if (!input.IsNumber()) return InvalidData("a number is required, not '{}'", input.TypeName());
  return Arithmetic(runtime, Op::kMod, input, Value(divisor));
}

template <int kRemainder>
Result<bool> Parity(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("odd", args, {}).status());
  ASSIGN_OR_RETURN(const Value rest, Remainder(runtime, input, 2));
  return rest.AsDouble() == kRemainder;
}

Result<bool> DivisibleBy(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("divisibleby", args, {"num"}, 1));
  ASSIGN_OR_RETURN(const int64_t divisor, IntArg("divisibleby", bound[0], 1));
  ASSIGN_OR_RETURN(const Value rest, Remainder(runtime, input, divisor));
  return rest.AsDouble() == 0;
}

// Whether two values are one object in Python, as far as templates can rely on it.
Result<bool> SameAs(Runtime&, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("sameas", args, {"other"}, 1));
  const Value& other = *bound[0];
  if (input.TypeName() != other.TypeName()) return false;
  if (input.sequence()) return input.sequence() == other.sequence();
  if (input.dict()) return input.dict() == other.dict();
  if (input.object()) return input.object() == other.object();
  if (input.str()) return input.str()->view() == other.str()->view();
  return input.is_none() || (input.IsNumber() && CompareNumbers(input, other) == 0);
}

template <bool kUpper>
Result<bool> IsCase(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const Str text, ToStr(runtime.budget(), input));
  ASSIGN_OR_RETURN(const Value value, FindStrMethod(kUpper ? "isupper" : "islower")(runtime, Value(text), args));
  return value.Truth();
}

template <bool kFilter>
Result<bool> Exists(Runtime&, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("filter", args, {}).status());
  if (!input.str()) return false;
  return kFilter ? FindFilter(input.str()->view()) != nullptr : FindTest(input.str()->view()) != nullptr;
}

bool IsDefined(const Value& v) { return !v.is_undefined(); }
bool IsUndefined(const Value& v) { return v.is_undefined(); }
bool IsNone(const Value& v) { return v.is_none(); }
bool IsBoolean(const Value& v) { return v.boolean() != nullptr; }
bool IsTrue(const Value& v) { return v.boolean() && *v.boolean(); }
bool IsFalse(const Value& v) { return v.boolean() && !*v.boolean(); }
bool IsInteger(const Value& v) { return v.integer() != nullptr; }
bool IsFloat(const Value& v) { return v.real() != nullptr; }
bool IsNumber(const Value& v) { return v.IsNumber(); }
bool IsString(const Value& v) { return v.str() != nullptr; }
bool IsMapping(const Value& v) { return v.dict() != nullptr; }
bool IsCallable(const Value& v) { return v.is_undefined() || (v.object() && v.object()->callable()); }
bool IsEscaped(const Value& v) { return v.str() && v.str()->markup(); }
bool IsIterable(const Value& v) { return v.str() || v.sequence() || v.dict() || v.is_undefined(); }
// Has a length and can be indexed, as Python sees it: undefined values do, generators and views of dicts do not.
bool IsSequence(const Value& v) {
  return v.str() || v.dict() || v.is_undefined() || (v.sequence() && v.sequence()->IsIndexable());
}

}  // namespace

TestFn FindTest(std::string_view name) {
  static const std::unordered_map<std::string_view, TestFn> kTests = {
      {"defined", Simple<IsDefined>},
      {"undefined", Simple<IsUndefined>},
      {"none", Simple<IsNone>},
      {"boolean", Simple<IsBoolean>},
      {"true", Simple<IsTrue>},
      {"false", Simple<IsFalse>},
      {"integer", Simple<IsInteger>},
      {"float", Simple<IsFloat>},
      {"number", Simple<IsNumber>},
      {"string", Simple<IsString>},
      {"mapping", Simple<IsMapping>},
      {"sequence", Simple<IsSequence>},
      {"iterable", Simple<IsIterable>},
      {"callable", Simple<IsCallable>},
      {"escaped", Simple<IsEscaped>},
      {"odd", Parity<1>},
      {"even", Parity<0>},
      {"divisibleby", DivisibleBy},
      {"sameas", SameAs},
      {"lower", IsCase<false>},
      {"upper", IsCase<true>},
      {"filter", Exists<true>},
      {"test", Exists<false>},
      {"in", Comparison<Op::kIn>},
      {"==", Comparison<Op::kEq>},
      {"eq", Comparison<Op::kEq>},
      {"equalto", Comparison<Op::kEq>},
      {"!=", Comparison<Op::kNe>},
      {"ne", Comparison<Op::kNe>},
      {"<", Comparison<Op::kLt>},
      {"lt", Comparison<Op::kLt>},
      {"lessthan", Comparison<Op::kLt>},
      {"<=", Comparison<Op::kLe>},
      {"le", Comparison<Op::kLe>},
      {">", Comparison<Op::kGt>},
      {"gt", Comparison<Op::kGt>},
      {"greaterthan", Comparison<Op::kGt>},
      {">=", Comparison<Op::kGe>},
      {"ge", Comparison<Op::kGe>},
  };
  const auto it = kTests.find(name);
  return it == kTests.end() ? nullptr : it->second;
}

}  // namespace kvasir::jinja
