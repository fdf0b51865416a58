// What expressions, filters, tests and methods share during one rendering.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "text/jinja_print.h"
#include "text/jinja_value.h"

namespace kvasir::jinja {

/// The object that {% set ns.x = … %} changes. The runtime clears all of them at the end, so that cycles cannot leak
/// and long chains are not freed recursively.
class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  Result<Value> Attribute(Runtime& runtime, std::string_view name) override;
  Status Set(Budget& budget, std::string_view name, Value value);
  void Clear() { attributes_.clear(); }

 private:
  std::unordered_map<std::string, Value> attributes_;
};

/// State of one rendering. Not thread-safe.
class Runtime {
 public:
  /// now: seconds since the epoch for strftime_now; negative: the current time.
  Runtime(uint64_t fuel, size_t max_string, int64_t now) : budget_(fuel, max_string), now_(now) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Budget& budget() { return budget_; }
  int64_t now() const { return now_; }
  /// A new namespace, owned jointly by the runtime until it ends.
  Result<std::shared_ptr<Namespace>> NewNamespace();

 private:
  Budget budget_;
  int64_t now_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

/// Python's getattr, then item access, as Jinja's `object.name`. Methods that change lists or dicts give undefined.
Result<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name);
/// Item access, then getattr for strings, as Jinja's `object[key]`.
Result<Value> GetItem(Runtime& runtime, const Value& object, const Value& key);
/// object[start:stop:step], where None is no bound. An error for what Python cannot slice.
Result<Value> GetSlice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);
Result<Value> CallValue(Runtime& runtime, const Value& callee, const CallArgs& args);

/// The elements that a for loop sees: characters of strings, keys of dicts. Consumes generators.
Result<std::vector<Value>> ToItems(Runtime& runtime, const Value& value);
/// len(value), or an error.
Result<int64_t> Length(const Value& value);
/// item in container.
Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

/// Arguments by parameter name; null where an argument was not given.
using BoundArgs = std::vector<const Value*>;
/// Binds as a Python function with these parameters would, of which the first `required` have no default.
Result<BoundArgs> BindArgs(std::string_view function, const CallArgs& args,
                           std::initializer_list<std::string_view> parameters, size_t required = 0);
/// The result points into `args`, which therefore must not be a temporary.
Result<BoundArgs> BindArgs(std::string_view function, CallArgs&& args,
                           std::initializer_list<std::string_view> parameters, size_t required = 0) = delete;
/// Reads one bound argument, or the default where it is absent; an error names function and type.
Result<int64_t> IntArg(std::string_view function, const Value* value, int64_t fallback);
Result<Str> StrArg(Runtime& runtime, std::string_view function, const Value* value, std::string_view fallback);

using MethodFn = Result<Value> (*)(Runtime&, const Value& self, const CallArgs&);
/// A method of str; null where Python's str has none of this name (or kvasir does not know it).
MethodFn FindStrMethod(std::string_view name);
/// A method of a list, tuple, range or dict that changes nothing.
MethodFn FindContainerMethod(const Value& self, std::string_view name);
/// Whether the sandbox forbids this method of a list or dict.
bool IsMutatingMethod(const Value& self, std::string_view name);

using FilterFn = Result<Value> (*)(Runtime&, const Value& input, const CallArgs&);
FilterFn FindFilter(std::string_view name);
using TestFn = Result<bool> (*)(Runtime&, const Value& input, const CallArgs&);
TestFn FindTest(std::string_view name);
Result<Value> ApplyFilter(Runtime& runtime, std::string_view name, const Value& input, const CallArgs& args);
Result<bool> ApplyTest(Runtime& runtime, std::string_view name, const Value& input, const CallArgs& args);

/// The global functions: range, namespace, dict, cycler, joiner, raise_exception, strftime_now.
std::vector<std::pair<std::string_view, Value>> Globals();

/// a op b for + - * / // % **. REQUIRES: op is arithmetic (see jinja_ast.h).
enum class Op : uint8_t;
Result<Value> Arithmetic(Runtime& runtime, Op op, const Value& a, const Value& b);
/// -a or +a.
Result<Value> Sign(bool negative, const Value& a);
/// A comparison or membership test.
Result<bool> Compare(Runtime& runtime, Op op, const Value& a, const Value& b);

/// Python's int(text, base) and float(text); false where the text is no number. Out of 64 bits is an error.
Result<bool> ParseInt(std::string_view text, int64_t base, int64_t& out);
bool ParseDouble(std::string_view text, double& out);

/// text % args, with Python's printf-like directives.
Result<Value> FormatPercent(Runtime& runtime, const Str& text, const Value& args);
/// text.format(*args, **kwargs).
Result<Value> FormatBraces(Runtime& runtime, const Str& text, const CallArgs& args);

}  // namespace kvasir::jinja
