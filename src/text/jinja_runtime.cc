#include "text/jinja_runtime.h"

#include <algorithm>
#include <limits>

#include "text/jinja_text.h"

namespace kvasir::jinja {
namespace {

class BoundMethod : public Object {
 public:
  BoundMethod(Value self, MethodFn method) : self_(std::move(self)), method_(method) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime& runtime, const CallArgs& args) override { return method_(runtime, self_, args); }
  int depth() const override { return self_.Depth() + 1; }

 private:
  Value self_;
  MethodFn method_;
};

std::string Describe(const Value& object) {
  return object.is_none() ? "None" : fmt::format("'{} object'", object.TypeName());
}

Value NoAttribute(const Value& object, std::string_view name) {
  return Value::MakeUndefined(fmt::format("{} has no attribute '{}'", Describe(object), name.substr(0, 100)));
}

Value Unsafe(const Value& object, std::string_view name) {
  return Value::MakeUndefined(
      fmt::format("access to attribute '{}' of '{}' object is unsafe.", name.substr(0, 100), object.TypeName()));
}

// Python's getattr; undefined with found = false where there is none.
Result<Value> FindAttribute(Runtime& runtime, const Value& object, std::string_view name, bool& found) {
  found = true;
  if (name.starts_with("__") && name.ends_with("__")) return Unsafe(object, name);
  if (object.object()) {
    ASSIGN_OR_RETURN(Value value, object.object()->Attribute(runtime, name));
    found = !value.is_undefined();
    return value;
  }
  if (IsMutatingMethod(object, name)) return Unsafe(object, name);
  const MethodFn method = object.str() ? FindStrMethod(name) : FindContainerMethod(object, name);
  if (method) {
    if (object.Depth() >= kMaxValueDepth) return ResourceExhausted("values are nested too deep");
    return Value(ObjectPtr(std::make_shared<BoundMethod>(object, method)));
  }
  found = false;
  return NoAttribute(object, name);
}

// Python's object[key]; null where it raises TypeError or LookupError.
Result<std::optional<Value>> FindItem(Runtime& runtime, const Value& object, const Value& key) {
  if (const Dict* dict = object.dict()) {
    RETURN_IF_ERROR(runtime.budget().Charge(key.str() ? key.str()->size() / 16 + 1 : 1));
    const Value* value = dict->Find(key);
    return value ? std::optional<Value>(*value) : std::nullopt;
  }
  const auto index = [&](size_t size) -> std::optional<size_t> {
    if (!key.IsInt()) return std::nullopt;
    const int64_t i = key.AsInt() < 0 ? key.AsInt() + static_cast<int64_t>(size) : key.AsInt();
    return i >= 0 && std::cmp_less(i, size) ? std::optional<size_t>(i) : std::nullopt;
  };
  if (const Sequence* sequence = object.sequence(); sequence && sequence->IsIndexable()) {
    const auto i = index(sequence->items.size());
    return i ? std::optional<Value>(sequence->items[*i]) : std::nullopt;
  }
  const Str* text = object.str();
  const auto i = text ? index(text->chars()) : std::nullopt;
  if (!i) return std::optional<Value>();
  RETURN_IF_ERROR(runtime.budget().Charge(text->ascii() ? 1 : text->size()));
  const size_t begin = text->ByteOfChar(*i);
  return std::optional<Value>(Value(text->Slice(begin, begin + DecodeUtf8(text->view(), begin).length)));
}

}  // namespace

Result<Value> Namespace::Attribute(Runtime& runtime, std::string_view name) {
  const auto it = attributes_.find(std::string(name));
  return it == attributes_.end() ? Object::Attribute(runtime, name) : Result<Value>(it->second);
}

Status Namespace::Set(Budget& budget, std::string_view name, Value value) {
  RETURN_IF_ERROR(budget.Charge(4 * kElementCost));
  attributes_.insert_or_assign(std::string(name), std::move(value));
  return OkStatus();
}

Runtime::~Runtime() {
  for (const auto& space : namespaces_) space->Clear();
}

Result<std::shared_ptr<Namespace>> Runtime::NewNamespace() {
  RETURN_IF_ERROR(budget_.Charge(16 * kElementCost));
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

Result<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_undefined()) return UndefinedError(object);
  bool found = false;
  ASSIGN_OR_RETURN(Value value, FindAttribute(runtime, object, name, found));
  if (found || !object.dict()) return value;
  if (const Value* item = object.dict()->Find(name)) return *item;
  return value;
}

Result<Value> GetItem(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_undefined()) return UndefinedError(object);
  ASSIGN_OR_RETURN(std::optional<Value> item, FindItem(runtime, object, key));
  if (item) return *std::move(item);
  if (key.str()) {
    bool found = false;
    return FindAttribute(runtime, object, key.str()->view(), found);
  }
  if (key.IsInt()) return Value::MakeUndefined(fmt::format("{} has no element {}", Describe(object), key.AsInt()));
  return Value::MakeUndefined(fmt::format("{} has no element of type '{}'", Describe(object), key.TypeName()));
}

Result<Value> GetSlice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
                       const Value& step) {
  if (object.is_undefined()) return UndefinedError(object);
  const Sequence* sequence = object.sequence();
  if (!object.str() && !(sequence && sequence->IsIndexable())) {
    return InvalidData("{} cannot be sliced", Describe(object));
  }
  for (const Value* bound : {&start, &stop, &step}) {
    if (bound->is_undefined()) return UndefinedError(*bound);
    if (!bound->IsInt() && !bound->is_none()) return InvalidData("slice indices must be integers or None");
  }
  const auto optional = [](const Value& v) { return v.IsInt() ? std::optional(v.AsInt()) : std::nullopt; };
  const int64_t stride = optional(step).value_or(1);
  if (stride == 0) return InvalidData("slice step cannot be zero");
  if (const Str* text = object.str()) {
    ASSIGN_OR_RETURN(Str slice, SliceChars(runtime.budget(), *text, optional(start), optional(stop), stride));
    return Value(slice.WithMarkup(text->markup()));
  }
  const auto [first, count] =
      ResolveSlice(static_cast<int64_t>(sequence->items.size()), optional(start), optional(stop), stride);
  RETURN_IF_ERROR(runtime.budget().Charge(static_cast<uint64_t>(count)));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) items.push_back(sequence->items[static_cast<size_t>(first + i * stride)]);
  return MakeSequence(runtime.budget(), std::move(items),
                      sequence->kind == SequenceKind::kTuple ? SequenceKind::kTuple : SequenceKind::kList);
}

Result<Value> CallValue(Runtime& runtime, const Value& callee, const CallArgs& args) {
  RETURN_IF_ERROR(runtime.budget().Charge(1 + args.positional.size() + args.named.size()));
  if (callee.is_undefined()) return UndefinedError(callee);
  if (!callee.object()) return InvalidData("a '{}' object is not callable", callee.TypeName());
  return callee.object()->Call(runtime, args);
}

Result<std::vector<Value>> ToItems(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  if (const Sequence* sequence = value.sequence()) {
    const size_t begin = sequence->Consume();
    RETURN_IF_ERROR(runtime.budget().Charge(kElementCost * (sequence->items.size() - begin)));
    items.assign(sequence->items.begin() + static_cast<ptrdiff_t>(begin), sequence->items.end());
  } else if (const Dict* dict = value.dict()) {
    RETURN_IF_ERROR(runtime.budget().Charge(kElementCost * dict->entries().size()));
    for (const auto& [key, unused] : dict->entries()) items.push_back(key);
  } else if (const Str* text = value.str()) {
    RETURN_IF_ERROR(runtime.budget().Charge(4 * kElementCost * text->chars()));
    ForEachChar(text->view(), [&](char32_t, size_t offset) {
      items.emplace_back(text->Slice(offset, offset + DecodeUtf8(text->view(), offset).length));
    });
  } else if (!value.is_undefined()) {
    return InvalidData("'{}' object is not iterable", value.TypeName());
  }
  return items;
}

Result<int64_t> Length(const Value& value) {
  if (const Str* s = value.str()) return static_cast<int64_t>(s->chars());
  if (const Dict* d = value.dict()) return static_cast<int64_t>(d->entries().size());
  if (value.is_undefined()) return int64_t{0};
  const Sequence* s = value.sequence();
  if (!s || s->IsGenerator()) return InvalidData("object of type '{}' has no len()", value.TypeName());
  return static_cast<int64_t>(s->items.size());
}

Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const Str* text = container.str()) {
    if (!item.str()) return InvalidData("'in <string>' requires string as left operand, not {}", item.TypeName());
    RETURN_IF_ERROR(runtime.budget().Charge(1 + text->size() / 4));
    return Find(text->view(), item.str()->view()) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    RETURN_IF_ERROR(runtime.budget().Charge(item.str() ? item.str()->size() / 16 + 1 : 1));
    if (item.sequence() || item.dict()) return InvalidData("unhashable type: '{}'", item.TypeName());
    return dict->Find(item) != nullptr;
  }
  const Sequence* sequence = container.sequence();
  if (!sequence) {
    if (container.is_undefined()) return false;
    return InvalidData("argument of type '{}' is not iterable", container.TypeName());
  }
  for (size_t i = sequence->consumed; i < sequence->items.size(); ++i) {
    if (sequence->IsGenerator()) sequence->consumed = i + 1;
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime.budget(), sequence->items[i], item));
    if (equal) return true;
  }
  return false;
}

Result<BoundArgs> BindArgs(std::string_view function, const CallArgs& args,
                           std::initializer_list<std::string_view> parameters, size_t required) {
  BoundArgs bound(parameters.size(), nullptr);
  if (args.positional.size() > parameters.size()) {
    return InvalidData("{}() takes at most {} arguments, {} were given", function, parameters.size(),
                       args.positional.size());
  }
  for (size_t i = 0; i < args.positional.size(); ++i) bound[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto* const it = std::find(parameters.begin(), parameters.end(), name);
    if (it == parameters.end()) return InvalidData("{}() has no parameter '{}'", function, name.substr(0, 100));
    const Value*& slot = bound[static_cast<size_t>(it - parameters.begin())];
    if (slot) return InvalidData("{}() got two values for '{}'", function, name);
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound[i]) return InvalidData("{}() misses the argument '{}'", function, *(parameters.begin() + i));
  }
  return bound;
}

Result<int64_t> IntArg(std::string_view function, const Value* value, int64_t fallback) {
  if (!value) return fallback;
  if (value->is_undefined()) return UndefinedError(*value);
  if (!value->IsInt()) return InvalidData("{}(): an integer is required, not '{}'", function, value->TypeName());
  return value->AsInt();
}

Result<Str> StrArg(Runtime&, std::string_view function, const Value* value, std::string_view fallback) {
  if (!value) return Str::Trusted(std::string(fallback));
  if (value->is_undefined()) return UndefinedError(*value);
  if (!value->str()) return InvalidData("{}(): a string is required, not '{}'", function, value->TypeName());
  return *value->str();
}

Result<Value> ApplyFilter(Runtime& runtime, std::string_view name, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(runtime.budget().Charge(1));
  const FilterFn filter = FindFilter(name);
  if (!filter) return Unsupported("no filter named '{}'", name.substr(0, 100));
  return filter(runtime, input, args);
}

Result<bool> ApplyTest(Runtime& runtime, std::string_view name, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(runtime.budget().Charge(1));
  const TestFn test = FindTest(name);
  if (!test) return Unsupported("no test named '{}'", name.substr(0, 100));
  return test(runtime, input, args);
}

}  // namespace kvasir::jinja
