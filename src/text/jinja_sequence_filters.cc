#include <algorithm>

#include "text/jinja_ast.h"
#include "text/jinja_filters.h"
#include "text/jinja_sort.h"
#include "text/jinja_text.h"

namespace kvasir::jinja {
namespace {

Result<Value> MakeList(Runtime& runtime, std::vector<Value> items) {
  return MakeSequence(runtime.budget(), std::move(items), SequenceKind::kList);
}

Result<Value> MakeGenerator(Runtime& runtime, std::vector<Value> items) {
  return MakeSequence(runtime.budget(), std::move(items), SequenceKind::kGenerator);
}

const Value* Given(const Value* value) { return value && !value->is_none() ? value : nullptr; }
bool IsTrue(const Value* value) { return value && value->Truth(); }

Result<Value> LengthFilter(Runtime&, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("length", args, {}).status());
  ASSIGN_OR_RETURN(const int64_t length, Length(input));
  return Value(length);
}

Result<Value> List(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("list", args, {}).status());
  ASSIGN_OR_RETURN(std::vector<Value> items, ToItems(runtime, input));
  return MakeList(runtime, std::move(items));
}

Result<Value> JoinFilter(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("join", args, {"d", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  ASSIGN_OR_RETURN(const Str separator, bound[0] ? ToStr(runtime.budget(), *bound[0]) : Result<Str>(Str()));
  const Value* attribute = bound[1] && !bound[1]->is_none() ? bound[1] : nullptr;
  StrBuilder out(runtime.budget());
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.Append(separator);
    ASSIGN_OR_RETURN(const Value item, AttributeOf(runtime, items[i], attribute));
    RETURN_IF_ERROR(PrintTo(runtime.budget(), item, out));
  }
  ASSIGN_OR_RETURN(Str text, std::move(out).Finish());
  return Value(std::move(text));
}

Result<Value> First(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("first", args, {}).status());
  const Value none = Value::MakeUndefined("No first item, sequence was empty.");
  if (const Sequence* sequence = input.sequence()) {
    if (sequence->consumed >= sequence->items.size()) return none;
    return sequence->items[sequence->IsGenerator() ? sequence->consumed++ : 0];
  }
  if (input.str()) return input.str()->empty() ? none : GetItem(runtime, input, Value(int64_t{0}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  return items.empty() ? none : items.front();
}

Result<Value> Last(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("last", args, {}).status());
  if (input.sequence() && input.sequence()->IsGenerator()) {
    return InvalidData("last: a generator is not reversible; apply the filter list first");
  }
  if (input.str() && !input.str()->empty()) return GetItem(runtime, input, Value(int64_t{-1}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  return items.empty() ? Value::MakeUndefined("No last item, sequence was empty.") : items.back();
}

Result<Value> Reverse(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("reverse", args, {}).status());
  if (input.str()) {
    ASSIGN_OR_RETURN(Str text, SliceChars(runtime.budget(), *input.str(), std::nullopt, std::nullopt, -1));
    return Value(std::move(text));
  }
  const bool generator = input.sequence() && input.sequence()->IsGenerator();
  ASSIGN_OR_RETURN(std::vector<Value> items, ToItems(runtime, input));
  std::reverse(items.begin(), items.end());
  return generator ? MakeList(runtime, std::move(items)) : MakeGenerator(runtime, std::move(items));
}

// As in Jinja, map, select and their kin make nothing of every false value, None too.
Result<std::vector<Value>> ItemsIfTrue(Runtime& runtime, const Value& input) {
  if (!input.Truth()) return std::vector<Value>();
  return ToItems(runtime, input);
}

// map(attribute=…, default=…), or map("filter", arguments…).
Result<Value> Map(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(std::vector<Value> items, ItemsIfTrue(runtime, input));
  if (args.positional.empty()) {
    ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("map", args, {"attribute", "default"}, 1));
    for (Value& item : items) {
      ASSIGN_OR_RETURN(item, AttributeOf(runtime, item, bound[0], Given(bound[1])));
    }
    return MakeGenerator(runtime, std::move(items));
  }
  ASSIGN_OR_RETURN(const Str name, StrArg(runtime, "map", &args.positional[0], ""));
  const CallArgs rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
  for (Value& item : items) {
    ASSIGN_OR_RETURN(item, ApplyFilter(runtime, name.view(), item, rest));
  }
  return MakeGenerator(runtime, std::move(items));
}

// select, reject, selectattr and rejectattr: keeps what passes a test, or what is true where no test is named.
template <bool kKeep, bool kAttribute>
Result<Value> Select(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsIfTrue(runtime, input));
  const size_t skip = kAttribute ? 1 : 0;
  if (args.positional.size() < skip) return InvalidData("selectattr: the name of the attribute is missing");
  Str test;
  CallArgs rest;
  if (args.positional.size() > skip) {
    ASSIGN_OR_RETURN(test, StrArg(runtime, "select", &args.positional[skip], ""));
    rest = {{args.positional.begin() + static_cast<ptrdiff_t>(skip) + 1, args.positional.end()}, args.named};
  }
  std::vector<Value> kept;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value value, AttributeOf(runtime, item, kAttribute ? &args.positional[0] : nullptr));
    bool passes = value.Truth();
    if (args.positional.size() > skip) {
      ASSIGN_OR_RETURN(passes, ApplyTest(runtime, test.view(), value, rest));
    }
    if (passes == kKeep) kept.push_back(item);
  }
  return MakeGenerator(runtime, std::move(kept));
}

// The key by which sort, min, max and unique compare.
Result<Value> SortKey(Runtime& runtime, const Value& item, const Value* attribute, bool case_sensitive) {
  ASSIGN_OR_RETURN(Value key, AttributeOf(runtime, item, attribute));
  if (case_sensitive) return key;
  return IgnoreCase(runtime, std::move(key));
}

Result<Value> Sort(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("sort", args, {"reverse", "case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  std::vector<Value> attributes;  // "a,b": by a, then by b
  if (Given(bound[2]) && bound[2]->str()) {
    const Str comma = Str::Trusted(",");
    ASSIGN_OR_RETURN(const std::vector<Str> names, Split(runtime.budget(), *bound[2]->str(), &comma, -1, false));
    attributes.assign(names.begin(), names.end());
  } else {
    attributes.push_back(Given(bound[2]) ? *bound[2] : Value());
  }
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> parts;
    for (const Value& attribute : attributes) {
      ASSIGN_OR_RETURN(Value part, SortKey(runtime, item, Given(&attribute), IsTrue(bound[1])));
      parts.push_back(std::move(part));
    }
    ASSIGN_OR_RETURN(Value key, MakeSequence(runtime.budget(), std::move(parts)));
    keys.push_back(std::move(key));
  }
  ASSIGN_OR_RETURN(const std::vector<size_t> order, SortOrder(runtime.budget(), keys, IsTrue(bound[0])));
  std::vector<Value> sorted;
  sorted.reserve(order.size());
  for (size_t index : order) sorted.push_back(items[index]);
  return MakeList(runtime, std::move(sorted));
}

Result<Value> DictSort(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("dictsort", args, {"case_sensitive", "by", "reverse"}));
  ASSIGN_OR_RETURN(const Str by, StrArg(runtime, "dictsort", bound[1], "key"));
  if (by.view() != "key" && by.view() != "value") return InvalidData("dictsort: can sort only by 'key' or 'value'");
  if (input.is_undefined()) return UndefinedError(input);
  if (!input.dict()) return InvalidData("dictsort: a dict is required, not '{}'", input.TypeName());
  std::vector<Value> keys;
  for (const auto& [key, value] : input.dict()->entries()) {
    ASSIGN_OR_RETURN(Value sort_key, SortKey(runtime, by.view() == "key" ? key : value, nullptr, IsTrue(bound[0])));
    keys.push_back(std::move(sort_key));
  }
  ASSIGN_OR_RETURN(const std::vector<size_t> order, SortOrder(runtime.budget(), keys, IsTrue(bound[2])));
  std::vector<Value> sorted;
  for (size_t index : order) {
    const auto& [key, value] = input.dict()->entries()[index];
    ASSIGN_OR_RETURN(Value pair, MakeSequence(runtime.budget(), {key, value}, SequenceKind::kTuple));
    sorted.push_back(std::move(pair));
  }
  return MakeList(runtime, std::move(sorted));
}

Result<Value> Unique(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("unique", args, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  Dict seen;
  std::vector<Value> kept;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, SortKey(runtime, item, Given(bound[1]), IsTrue(bound[0])));
    RETURN_IF_ERROR(runtime.budget().Charge(2 * kElementCost));
    if (seen.Find(key)) continue;
    RETURN_IF_ERROR(seen.Set(std::move(key), Value()));
    kept.push_back(item);
  }
  return MakeGenerator(runtime, std::move(kept));
}

template <bool kMax>
Result<Value> Extreme(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("min", args, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  if (items.empty()) return Value::MakeUndefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(Value key, SortKey(runtime, items[i], Given(bound[1]), IsTrue(bound[0])));
    bool better = i == 0;
    if (!better) {
      ASSIGN_OR_RETURN(better, kMax ? Less(runtime.budget(), best_key, key) : Less(runtime.budget(), key, best_key));
    }
    if (!better) continue;
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Result<Value> Sum(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("sum", args, {"attribute", "start"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  Value total = bound[1] ? *bound[1] : Value(int64_t{0});
  if (total.str()) return InvalidData("sum: strings cannot be summed; use the filter join");
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value part, AttributeOf(runtime, item, Given(bound[0])));
    ASSIGN_OR_RETURN(total, Arithmetic(runtime, Op::kAdd, total, part));
  }
  return total;
}

Result<Value> Items(Runtime& runtime, const Value& input, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("items", args, {}).status());
  if (input.is_undefined()) return MakeGenerator(runtime, {});
  if (!input.dict()) return InvalidData("items: can only get item pairs from a mapping");
  ASSIGN_OR_RETURN(const Value view, FindContainerMethod(input, "items")(runtime, input, {}));
  return MakeGenerator(runtime, view.sequence()->items);
}

Result<Value> Batch(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("batch", args, {"linecount", "fill_with"}, 1));
  ASSIGN_OR_RETURN(const int64_t size, IntArg("batch", bound[0], 0));
  if (size < 1) return InvalidData("batch: the size must be at least 1");
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, input));
  std::vector<Value> batches;
  for (size_t begin = 0; begin < items.size();) {
    const size_t end = begin + std::min(static_cast<size_t>(size), items.size() - begin);
    std::vector<Value> batch(items.begin() + static_cast<ptrdiff_t>(begin),
                             items.begin() + static_cast<ptrdiff_t>(end));
    if (Given(bound[1]) && std::cmp_less(batch.size(), size)) {
      RETURN_IF_ERROR(runtime.budget().Charge(kElementCost * static_cast<uint64_t>(size)));
      batch.resize(static_cast<size_t>(size), *bound[1]);
    }
    ASSIGN_OR_RETURN(Value list, MakeList(runtime, std::move(batch)));
    batches.push_back(std::move(list));
    begin = end;
  }
  return MakeGenerator(runtime, std::move(batches));
}

Result<Value> Attr(Runtime& runtime, const Value& input, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("attr", args, {"name"}, 1));
  ASSIGN_OR_RETURN(const Str name, StrArg(runtime, "attr", bound[0], ""));
  if (input.dict() && !FindContainerMethod(input, name.view()) && !IsMutatingMethod(input, name.view())) {
    return Value::MakeUndefined(fmt::format("'dict object' has no attribute '{}'", name.view().substr(0, 100)));
  }
  return GetAttribute(runtime, input, name.view());
}

}  // namespace

Result<Value> AttributeOf(Runtime& runtime, const Value& value, const Value* attribute, const Value* fallback) {
  if (!attribute) return value;
  if (!attribute->str()) {
    ASSIGN_OR_RETURN(Value item, GetItem(runtime, value, *attribute));
    return fallback && item.is_undefined() ? *fallback : item;
  }
  // "a.b.0": each part an item (a number indexes), as Jinja's make_attrgetter.
  const Str dot = Str::Trusted(".");
  ASSIGN_OR_RETURN(const std::vector<Str> parts, Split(runtime.budget(), *attribute->str(), &dot, -1, false));
  Value current = value;
  for (const Str& part : parts) {
    int64_t index = 0;
    const std::string_view text = part.view();
    const bool digits = !text.empty() && text.size() < 18 && text.find_first_not_of("0123456789") == text.npos;
    if (digits) {
      ASSIGN_OR_RETURN(const bool parsed, ParseInt(text, 10, index));
      if (!parsed) return InvalidData("'{}' is not an index", text);
    }
    ASSIGN_OR_RETURN(current, GetItem(runtime, current, digits ? Value(index) : Value(part)));
    if (fallback && current.is_undefined()) current = *fallback;
  }
  return current;
}

Result<Value> IgnoreCase(Runtime& runtime, Value value) {
  if (!value.str()) return value;
  ASSIGN_OR_RETURN(Str lower, ChangeCase(runtime.budget(), *value.str(), CaseStyle::kLower));
  return Value(std::move(lower));
}

const FilterTable& SequenceFilters() {
  static const FilterTable kTable = {
      {"length", LengthFilter},
      {"count", LengthFilter},
      {"list", List},
      {"join", JoinFilter},
      {"first", First},
      {"last", Last},
      {"reverse", Reverse},
      {"map", Map},
      {"select", Select<true, false>},
      {"reject", Select<false, false>},
      {"selectattr", Select<true, true>},
      {"rejectattr", Select<false, true>},
      {"sort", Sort},
      {"dictsort", DictSort},
      {"unique", Unique},
      {"min", Extreme<false>},
      {"max", Extreme<true>},
      {"sum", Sum},
      {"items", Items},
      {"batch", Batch},
      {"attr", Attr},
  };
  return kTable;
}

FilterFn FindFilter(std::string_view name) {
  for (const FilterTable* table : {&ScalarFilters(), &SequenceFilters()}) {
    const auto it = table->find(name);
    if (it != table->end()) return it->second;
  }
  return nullptr;
}

}  // namespace kvasir::jinja
