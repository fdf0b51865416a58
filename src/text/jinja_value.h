// The values a template computes with: Python's, as far as templates can tell.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"
#include "text/jinja_budget.h"
#include "text/jinja_string.h"

namespace kvasir::jinja {

class Value;
struct Sequence;
class Dict;
class Object;
class Runtime;

/// Deepest nesting of lists, dicts and objects; keeps every recursion over values (printing, comparing, freeing) short.
inline constexpr int kMaxValueDepth = 128;

/// What a name, attribute or element that does not exist evaluates to. Prints as nothing; most other uses are errors.
struct Undefined {
  std::shared_ptr<const std::string> message;
};
struct None {};

using SequencePtr = std::shared_ptr<const Sequence>;
using DictPtr = std::shared_ptr<const Dict>;
using ObjectPtr = std::shared_ptr<Object>;

/// An immutable value (objects aside: namespaces change). Cheap to copy.
class Value {
 public:
  Value() : data_(None{}) {}
  Value(None) : data_(None{}) {}                 // NOLINT(google-explicit-constructor)
  Value(bool b) : data_(b) {}                    // NOLINT(google-explicit-constructor)
  Value(int64_t i) : data_(i) {}                 // NOLINT(google-explicit-constructor)
  Value(double d) : data_(d) {}                  // NOLINT(google-explicit-constructor)
  Value(Str s) : data_(std::move(s)) {}          // NOLINT(google-explicit-constructor)
  Value(SequencePtr s) : data_(std::move(s)) {}  // NOLINT(google-explicit-constructor)
  Value(DictPtr d) : data_(std::move(d)) {}      // NOLINT(google-explicit-constructor)
  Value(ObjectPtr o) : data_(std::move(o)) {}    // NOLINT(google-explicit-constructor)
  Value(const char*) = delete;
  static Value MakeUndefined(std::string message);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const Str* str() const { return std::get_if<Str>(&data_); }
  const Sequence* sequence() const;
  const Dict* dict() const;
  Object* object() const;
  const SequencePtr& sequence_ptr() const { return std::get<SequencePtr>(data_); }

  /// Bools count as the integers 0 and 1, as in Python.
  bool IsInt() const { return boolean() || integer(); }
  bool IsNumber() const { return IsInt() || real(); }
  /// REQUIRES: IsInt().
  int64_t AsInt() const { return integer() ? *integer() : static_cast<int64_t>(*boolean()); }
  /// REQUIRES: IsNumber().
  double AsDouble() const { return real() ? *real() : static_cast<double>(AsInt()); }

  /// The message of an undefined value ("'x' is undefined").
  const std::string& undefined_message() const { return *std::get<Undefined>(data_).message; }
  /// Python's truth value.
  bool Truth() const;
  /// Python's name of the type: "str", "dict", "NoneType".
  std::string_view TypeName() const;
  /// Levels of nesting below this value: 0 for scalars.
  int Depth() const;

 private:
  std::variant<None, bool, int64_t, double, Str, SequencePtr, DictPtr, ObjectPtr, Undefined> data_;
};

enum class SequenceKind { kList, kTuple, kRange, kKeys, kValues, kItems, kGenerator };

/// Everything that holds values in order. A generator is evaluated when made, but is consumed by reading it once.
struct Sequence {
  std::vector<Value> items;
  SequenceKind kind = SequenceKind::kList;
  int depth = 1;
  std::string label;            // how a range prints
  mutable size_t consumed = 0;  // generators: elements already read

  bool IsGenerator() const { return kind == SequenceKind::kGenerator; }
  /// Lists, tuples and ranges can be indexed.
  bool IsIndexable() const { return kind <= SequenceKind::kRange; }
  /// Marks a generator as read; returns where reading begins.
  size_t Consume() const;
};

/// A dict in insertion order. Keys are strings, numbers, bools or None.
class Dict {
 public:
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  int depth() const { return depth_; }

  /// Adds or replaces. Fails for keys that are not scalars and for nesting beyond kMaxValueDepth.
  Status Set(Value key, Value value);

 private:
  struct KeyLess {
    bool operator()(const Value& a, const Value& b) const;
  };
  std::vector<std::pair<Value, Value>> entries_;
  std::map<Value, size_t, KeyLess> index_;  // used from the ninth entry on
  int depth_ = 1;
};

/// Arguments of a call, filter or test, in the order they were written.
struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// Namespaces, loops, macros, functions, methods. Lives within one rendering.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual bool callable() const { return false; }
  virtual Result<Value> Call(Runtime& runtime, const CallArgs& args);
  /// Python's getattr: the attribute, or undefined where there is none.
  virtual Result<Value> Attribute(Runtime& runtime, std::string_view name);
  /// How it prints; an error where Python would print a memory address.
  virtual Result<std::string> Print() const;
  virtual int depth() const { return 1; }
};

/// Makes a list (or tuple, …), charging for its elements. Fails beyond kMaxValueDepth.
Result<Value> MakeSequence(Budget& budget, std::vector<Value> items, SequenceKind kind = SequenceKind::kList);
/// A dict as a value, charging for its entries.
Result<Value> MakeDict(Budget& budget, Dict dict);
inline Value MakeStr(std::string_view text) { return Value(Str::Trusted(std::string(text))); }

/// Python's ==. Charges for what it compares.
Result<bool> Equal(Budget& budget, const Value& a, const Value& b);
/// Python's <; an error for types without an order.
Result<bool> Less(Budget& budget, const Value& a, const Value& b);
/// Whether the two are numbers or bools with the same value, or the same string; never fails.
int CompareNumbers(const Value& a, const Value& b);

/// The error for using an undefined value.
Status UndefinedError(const Value& value);

}  // namespace kvasir::jinja
