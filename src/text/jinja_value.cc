#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>

namespace kvasir::jinja {
namespace {

// Order of types among dict keys; numbers and bools are one type, as 1 == True == 1.0.
int KeyRank(const Value& v) {
  if (v.IsNumber()) return 0;
  return v.str() ? 1 : 2;
}

bool IsKey(const Value& v) { return v.IsNumber() || v.str() || v.is_none(); }

bool SameKey(const Value& a, const Value& b) {
  if (KeyRank(a) != KeyRank(b)) return false;
  if (a.str()) return a.str()->view() == b.str()->view();
  return a.is_none() || CompareNumbers(a, b) == 0;
}

Status NoOrder(const Value& a, const Value& b) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  return InvalidData("'<' is not supported between '{}' and '{}'", a.TypeName(), b.TypeName());
}

// Views of dicts compare as sets in Python; templates never do that, so only like kinds with an order compare.
bool SameSequenceType(const Sequence& a, const Sequence& b) { return a.kind == b.kind && a.IsIndexable(); }

Result<bool> EqualSequences(Budget& budget, const Sequence& a, const Sequence& b) {
  if (&a == &b) return true;
  if (!SameSequenceType(a, b) || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equal(budget, a.items[i], b.items[i]));
    if (!equal) return false;
  }
  return true;
}

Result<bool> EqualDicts(Budget& budget, const Dict& a, const Dict& b) {
  if (&a == &b) return true;
  if (a.entries().size() != b.entries().size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.Find(key);
    if (!other) return false;
    ASSIGN_OR_RETURN(const bool equal, Equal(budget, value, *other));
    if (!equal) return false;
  }
  return true;
}

}  // namespace

Value Value::MakeUndefined(std::string message) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(message))};
  return value;
}

const Sequence* Value::sequence() const {
  const auto* p = std::get_if<SequencePtr>(&data_);
  return p ? p->get() : nullptr;
}

const Dict* Value::dict() const {
  const auto* p = std::get_if<DictPtr>(&data_);
  return p ? p->get() : nullptr;
}

Object* Value::object() const {
  const auto* p = std::get_if<ObjectPtr>(&data_);
  return p ? p->get() : nullptr;
}

bool Value::Truth() const {
  if (const bool* b = boolean()) return *b;
  if (const int64_t* i = integer()) return *i != 0;
  if (const double* d = real()) return *d != 0;
  if (const Str* s = str()) return !s->empty();
  if (const Sequence* s = sequence()) return s->IsGenerator() || !s->items.empty();
  if (const Dict* d = dict()) return !d->entries().empty();
  return object() != nullptr;
}

std::string_view Value::TypeName() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (boolean()) return "bool";
  if (integer()) return "int";
  if (real()) return "float";
  if (str()) return "str";
  if (dict()) return "dict";
  if (const Sequence* s = sequence()) {
    switch (s->kind) {
      case SequenceKind::kList: return "list";
      case SequenceKind::kTuple: return "tuple";
      case SequenceKind::kRange: return "range";
      case SequenceKind::kKeys: return "dict_keys";
      case SequenceKind::kValues: return "dict_values";
      case SequenceKind::kItems: return "dict_items";
      case SequenceKind::kGenerator: return "generator";
    }
  }
  return object()->type_name();
}

int Value::Depth() const {
  if (const Sequence* s = sequence()) return s->depth;
  if (const Dict* d = dict()) return d->depth();
  if (const Object* o = object()) return o->depth();
  return 0;
}

size_t Sequence::Consume() const {
  if (!IsGenerator()) return 0;
  return std::exchange(consumed, items.size());
}

bool Dict::KeyLess::operator()(const Value& a, const Value& b) const {
  const int rank_a = KeyRank(a), rank_b = KeyRank(b);
  if (rank_a != rank_b) return rank_a < rank_b;
  if (rank_a == 0) return CompareNumbers(a, b) < 0;
  return rank_a == 1 && a.str()->view() < b.str()->view();
}

const Value* Dict::Find(const Value& key) const {
  if (!IsKey(key)) return nullptr;
  if (!index_.empty()) {
    const auto it = index_.find(key);
    return it == index_.end() ? nullptr : &entries_[it->second].second;
  }
  for (const auto& [k, v] : entries_) {
    if (SameKey(k, key)) return &v;
  }
  return nullptr;
}

const Value* Dict::Find(std::string_view key) const {
  if (!index_.empty()) return Find(MakeStr(key));
  for (const auto& [k, v] : entries_) {
    if (k.str() && k.str()->view() == key) return &v;
  }
  return nullptr;
}

Status Dict::Set(Value key, Value value) {
  if (!IsKey(key)) {
    if (key.is_undefined()) return UndefinedError(key);
    return InvalidData("a value of type '{}' cannot be the key of a dict here (strings, numbers and None can)",
                       key.TypeName());
  }
  // NaN equals nothing, so it has no place in an ordered index.
  if (key.real() && std::isnan(*key.real())) return InvalidData("NaN cannot be the key of a dict");
  depth_ = std::max(depth_, value.Depth() + 1);
  if (depth_ > kMaxValueDepth) return ResourceExhausted("values are nested deeper than {} levels", kMaxValueDepth);
  if (const Value* old = Find(key)) {
    *const_cast<Value*>(old) = std::move(value);  // an element of our own entries_
    return OkStatus();
  }
  constexpr size_t kLinear = 8;
  if (entries_.size() == kLinear) {
    for (size_t i = 0; i < kLinear; ++i) index_.emplace(entries_[i].first, i);
  }
  if (entries_.size() >= kLinear) index_.emplace(key, entries_.size());
  entries_.emplace_back(std::move(key), std::move(value));
  return OkStatus();
}

Result<Value> Object::Call(Runtime&, const CallArgs&) {
  return InvalidData("a '{}' object is not callable", type_name());
}

Result<Value> Object::Attribute(Runtime&, std::string_view name) {
  return Value::MakeUndefined(fmt::format("'{} object' has no attribute '{}'", type_name(), name.substr(0, 100)));
}

Result<std::string> Object::Print() const {
  return Unsupported("a '{}' object cannot be printed: Python would print a memory address", type_name());
}

Result<Value> MakeSequence(Budget& budget, std::vector<Value> items, SequenceKind kind) {
  RETURN_IF_ERROR(budget.Charge(1 + kElementCost * items.size()));
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.Depth());
  if (++depth > kMaxValueDepth) return ResourceExhausted("values are nested deeper than {} levels", kMaxValueDepth);
  auto sequence = std::make_shared<Sequence>();
  sequence->items = std::move(items);
  sequence->kind = kind;
  sequence->depth = depth;
  return Value(SequencePtr(std::move(sequence)));
}

Result<Value> MakeDict(Budget& budget, Dict dict) {
  RETURN_IF_ERROR(budget.Charge(1 + 4 * kElementCost * dict.entries().size()));
  return Value(DictPtr(std::make_shared<const Dict>(std::move(dict))));
}

int CompareNumbers(const Value& a, const Value& b) {
  if (a.IsInt() && b.IsInt()) return a.AsInt() < b.AsInt() ? -1 : a.AsInt() > b.AsInt();
  // long double holds every int64 and every double exactly where it has 64 mantissa bits or more.
  const auto wide = [](const Value& v) {
    return v.real() ? static_cast<long double>(*v.real()) : static_cast<long double>(v.AsInt());
  };
  const long double x = wide(a), y = wide(b);
  if (x < y) return -1;
  if (x > y) return 1;
  return x == y ? 0 : 2;  // NaN: neither
}

Result<bool> Equal(Budget& budget, const Value& a, const Value& b) {
  RETURN_IF_ERROR(budget.Charge(1));
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == 0;
  if (a.str() && b.str()) {
    if (a.str()->size() != b.str()->size()) return false;
    RETURN_IF_ERROR(budget.Charge(a.str()->size() / 16));
    return a.str()->view() == b.str()->view();
  }
  if (a.sequence() && b.sequence()) return EqualSequences(budget, *a.sequence(), *b.sequence());
  if (a.dict() && b.dict()) return EqualDicts(budget, *a.dict(), *b.dict());
  if (a.object() && b.object()) return a.object() == b.object();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

Result<bool> Less(Budget& budget, const Value& a, const Value& b) {
  RETURN_IF_ERROR(budget.Charge(1));
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == -1;
  if (a.str() && b.str()) {
    RETURN_IF_ERROR(budget.Charge(std::min(a.str()->size(), b.str()->size()) / 16));
    return a.str()->view() < b.str()->view();  // UTF-8 keeps the order of code points
  }
  if (!a.sequence() || !b.sequence()) return NoOrder(a, b);
  const Sequence &x = *a.sequence(), &y = *b.sequence();
  if (!SameSequenceType(x, y) || x.kind == SequenceKind::kRange) return NoOrder(a, b);
  for (size_t i = 0; i < std::min(x.items.size(), y.items.size()); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equal(budget, x.items[i], y.items[i]));
    if (!equal) return Less(budget, x.items[i], y.items[i]);
  }
  return x.items.size() < y.items.size();
}

Status UndefinedError(const Value& value) { return InvalidData("{}", value.undefined_message()); }

}  // namespace kvasir::jinja
