// Methods of str, list, tuple and dict.
#include <algorithm>
#include <limits>
#include <unordered_map>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"
#include "text/jinja_unicode.h"

namespace kvasir::jinja {
namespace {

// Every str method pays for looking at its string once.
Status ChargeStr(Runtime& runtime, const Value& self) { return runtime.budget().Charge(1 + self.str()->size()); }

template <Side kSide>
Result<Value> StrStrip(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("strip", args, {"chars"}));
  if (!bound[0] || bound[0]->is_none()) return Value(Strip(*self.str(), nullptr, kSide));
  ASSIGN_OR_RETURN(const Str chars, StrArg(runtime, "strip", bound[0], ""));
  RETURN_IF_ERROR(runtime.budget().Charge(8 * chars.size()));
  return Value(Strip(*self.str(), &chars, kSide));
}

Result<Value> StrList(Runtime& runtime, std::vector<Str> parts, SequenceKind kind = SequenceKind::kList) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (Str& part : parts) items.emplace_back(std::move(part));
  RETURN_IF_ERROR(runtime.budget().Charge(2 * kElementCost * items.size()));
  return MakeSequence(runtime.budget(), std::move(items), kind);
}

template <bool kFromRight>
Result<Value> StrSplit(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("split", args, {"sep", "maxsplit"}));
  ASSIGN_OR_RETURN(const int64_t limit, IntArg("split", bound[1], -1));
  const bool space = !bound[0] || bound[0]->is_none();
  ASSIGN_OR_RETURN(const Str separator, StrArg(runtime, "split", space ? nullptr : bound[0], ""));
  ASSIGN_OR_RETURN(std::vector<Str> parts,
                   Split(runtime.budget(), *self.str(), space ? nullptr : &separator, limit, kFromRight));
  return StrList(runtime, std::move(parts));
}

Result<Value> StrSplitLines(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("splitlines", args, {"keepends"}));
  return StrList(runtime, SplitLines(*self.str(), bound[0] && bound[0]->Truth()));
}

template <bool kFromRight>
Result<Value> StrPartition(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("partition", args, {"sep"}, 1));
  ASSIGN_OR_RETURN(const Str separator, StrArg(runtime, "partition", bound[0], ""));
  ASSIGN_OR_RETURN(std::vector<Str> parts, Split(runtime.budget(), *self.str(), &separator, 1, kFromRight));
  if (parts.size() == 2) {
    parts.insert(parts.begin() + 1, separator);
  } else {
    parts.insert(kFromRight ? parts.begin() : parts.end(), 2, Str());
  }
  return StrList(runtime, std::move(parts), SequenceKind::kTuple);
}

Result<Value> StrReplace(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("replace", args, {"old", "new", "count"}, 2));
  ASSIGN_OR_RETURN(const Str old, StrArg(runtime, "replace", bound[0], ""));
  ASSIGN_OR_RETURN(const Str with, StrArg(runtime, "replace", bound[1], ""));
  ASSIGN_OR_RETURN(const int64_t count, IntArg("replace", bound[2], -1));
  ASSIGN_OR_RETURN(Str text, Replace(runtime.budget(), *self.str(), old, with, count));
  return Value(std::move(text));
}

// The bytes that the optional arguments start and end leave of the string; false where start lies beyond its end.
Result<bool> Window(const Str& text, const Value* start, const Value* end, size_t& first, size_t& last) {
  const auto bound = [](const Value* v) { return v && !v->is_none() ? v : nullptr; };
  const auto length = static_cast<int64_t>(text.chars());
  ASSIGN_OR_RETURN(int64_t from, IntArg("find", bound(start), 0));
  ASSIGN_OR_RETURN(int64_t to, IntArg("find", bound(end), length));
  if (from < 0) from = std::max<int64_t>(0, from < -length ? 0 : from + length);
  if (to < 0) to = to < -length ? 0 : to + length;
  to = std::min(to, length);
  if (from > to) return false;
  first = text.ByteOfChar(static_cast<size_t>(from));
  last = text.ByteOfChar(static_cast<size_t>(to));
  return true;
}

template <bool kAtStart>
Result<Value> StrHasAffix(Runtime& runtime, const Value& self, const CallArgs& args) {
  constexpr std::string_view kName = kAtStart ? "startswith" : "endswith";
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs(kName, args, {"prefix", "start", "end"}, 1));
  const Str& text = *self.str();
  RETURN_IF_ERROR(runtime.budget().Charge(1 + (text.ascii() ? 0 : text.size() / 4)));
  size_t first = 0, last = 0;
  ASSIGN_OR_RETURN(const bool inside, Window(text, bound[1], bound[2], first, last));
  const std::string_view view = text.view().substr(first, last - first);
  const Sequence* several = bound[0]->sequence();
  const std::vector<Value> one = several ? std::vector<Value>() : std::vector<Value>{*bound[0]};
  if (several && several->kind != SequenceKind::kTuple) {
    return InvalidData("{} first arg must be str or a tuple of str, not {}", kName, bound[0]->TypeName());
  }
  for (const Value& affix : several ? several->items : one) {
    ASSIGN_OR_RETURN(const Str wanted, StrArg(runtime, kName, &affix, ""));
    RETURN_IF_ERROR(runtime.budget().Charge(1 + std::min(wanted.size(), text.size()) / 16));
    if (inside && (kAtStart ? view.starts_with(wanted.view()) : view.ends_with(wanted.view()))) return Value(true);
  }
  return Value(false);
}

enum class FindStyle : uint8_t { kFind, kRFind, kIndex, kRIndex, kCount };

template <FindStyle kStyle>
Result<Value> StrFind(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("find", args, {"sub", "start", "end"}, 1));
  ASSIGN_OR_RETURN(const Str needle, StrArg(runtime, "find", bound[0], ""));
  const Str& text = *self.str();
  size_t first = 0, last = 0;
  ASSIGN_OR_RETURN(const bool inside, Window(text, bound[1], bound[2], first, last));
  const std::string_view view = text.view().substr(0, last);
  if constexpr (kStyle == FindStyle::kCount) {
    int64_t count = 0;
    if (inside && needle.empty()) count = static_cast<int64_t>(text.CharOfByte(last) - text.CharOfByte(first)) + 1;
    for (size_t at = first; inside && !needle.empty(); at += needle.size(), ++count) {
      at = Find(view, needle.view(), at);
      if (at == std::string_view::npos) break;
    }
    return Value(count);
  }
  size_t found = std::string_view::npos;
  if (inside && (kStyle == FindStyle::kFind || kStyle == FindStyle::kIndex)) {
    found = Find(view, needle.view(), first);
  } else if (inside) {
    RETURN_IF_ERROR(runtime.budget().Charge(view.size() / 16 * needle.size()));  // see Split
    found = view.substr(first).rfind(needle.view());
    if (found != std::string_view::npos) found += first;
  }
  if (found != std::string_view::npos) return Value(static_cast<int64_t>(text.CharOfByte(found)));
  if (kStyle == FindStyle::kIndex || kStyle == FindStyle::kRIndex) return InvalidData("substring not found");
  return Value(int64_t{-1});
}

template <CaseStyle kStyle>
Result<Value> StrCase(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  RETURN_IF_ERROR(BindArgs("upper", args, {}).status());
  ASSIGN_OR_RETURN(Str text, ChangeCase(runtime.budget(), *self.str(), kStyle));
  return Value(text.WithMarkup(self.str()->markup()));
}

Result<Value> StrJoin(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("join", args, {"iterable"}, 1));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ToItems(runtime, *bound[0]));
  std::vector<Str> parts;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].str()) {
      return InvalidData("sequence item {}: expected str instance, {} found", i, items[i].TypeName());
    }
    parts.push_back(*items[i].str());
  }
  ASSIGN_OR_RETURN(Str text, Join(runtime.budget(), *self.str(), parts));
  return Value(std::move(text));
}

// Whether all characters have a property; kEmpty: the answer for no characters.
template <bool (*kProperty)(char32_t), bool kEmpty = false>
Result<Value> StrAll(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  RETURN_IF_ERROR(BindArgs("isalpha", args, {}).status());
  bool all = kEmpty || !self.str()->empty();
  ForEachChar(self.str()->view(), [&](char32_t c, size_t) { all = all && kProperty(c); });
  return Value(all);
}

// Whether there is a cased character and none of the other case.
template <bool kUpper>
Result<Value> StrIsCase(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  RETURN_IF_ERROR(BindArgs("isupper", args, {}).status());
  bool some = false, other = false;
  ForEachChar(self.str()->view(), [&](char32_t c, size_t) {
    some = some || (kUpper ? IsUpper(c) : IsLower(c));
    other = other || IsTitle(c) || (kUpper ? IsLower(c) : IsUpper(c));
  });
  return Value(some && !other);
}

// A method that Python's str has, and templates hardly need.
Result<Value> StrUnsupported(Runtime&, const Value&, const CallArgs&) {
  return Unsupported("this method of str is not supported in chat templates");
}

bool IsAscii(char32_t c) { return c < 0x80; }
bool IsAlphaNumeric(char32_t c) { return IsAlpha(c) || IsNumeric(c); }

template <bool kPrefix>
Result<Value> StrRemoveAffix(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ChargeStr(runtime, self));
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("removeprefix", args, {"prefix"}, 1));
  ASSIGN_OR_RETURN(const Str affix, StrArg(runtime, "removeprefix", bound[0], ""));
  const Str& text = *self.str();
  if (kPrefix && text.view().starts_with(affix.view())) return Value(text.Slice(affix.size(), text.size()));
  if (!kPrefix && text.view().ends_with(affix.view())) return Value(text.Slice(0, text.size() - affix.size()));
  return self;
}

enum class Pad : uint8_t { kLeft, kRight, kCenter };

template <Pad kPad>
Result<Value> StrPad(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("center", args, {"width", "fillchar"}, 1));
  ASSIGN_OR_RETURN(const int64_t width, IntArg("center", bound[0], 0));
  ASSIGN_OR_RETURN(const Str fill, StrArg(runtime, "center", bound[1], " "));
  if (fill.chars() != 1) return InvalidData("the fill character must be exactly one character long");
  const auto length = static_cast<int64_t>(self.str()->chars());
  if (width <= length) return self;
  const int64_t pad = width - length;
  const int64_t left = kPad == Pad::kLeft ? 0 : kPad == Pad::kRight ? pad : pad / 2 + (pad & width & 1);
  StrBuilder out(runtime.budget());
  for (int64_t i = 0; i < left && !out.failed(); ++i) out.Append(fill);
  out.Append(*self.str());
  for (int64_t i = left; i < pad && !out.failed(); ++i) out.Append(fill);
  ASSIGN_OR_RETURN(Str text, std::move(out).Finish());
  return Value(std::move(text));
}

Result<Value> StrZeroFill(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("zfill", args, {"width"}, 1));
  ASSIGN_OR_RETURN(const int64_t width, IntArg("zfill", bound[0], 0));
  const Str& text = *self.str();
  const size_t sign = text.view().starts_with('-') || text.view().starts_with('+');
  StrBuilder out(runtime.budget());
  out.AppendSlice(text, 0, sign);
  for (auto i = static_cast<int64_t>(text.chars()); i < width && !out.failed(); ++i) out.Append("0");
  out.AppendSlice(text, sign, text.size());
  ASSIGN_OR_RETURN(Str result, std::move(out).Finish());
  return Value(std::move(result));
}

Result<Value> StrFormat(Runtime& runtime, const Value& self, const CallArgs& args) {
  return FormatBraces(runtime, *self.str(), args);
}

Result<Value> SequenceIndex(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("index", args, {"value"}, 1));
  const auto& items = self.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime.budget(), items[i], *bound[0]));
    if (equal) return Value(static_cast<int64_t>(i));
  }
  return InvalidData("the value is not in the list");
}

Result<Value> SequenceCount(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("count", args, {"value"}, 1));
  int64_t count = 0;
  for (const Value& item : self.sequence()->items) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime.budget(), item, *bound[0]));
    count += equal;
  }
  return Value(count);
}

// Lists and dicts never change, so a copy is the thing itself.
Result<Value> Copy(Runtime&, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("copy", args, {}).status());
  return self;
}

Result<Value> DictGet(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const BoundArgs bound, BindArgs("get", args, {"key", "default"}, 1));
  RETURN_IF_ERROR(runtime.budget().Charge(bound[0]->str() ? 1 + bound[0]->str()->size() / 16 : 1));
  if (bound[0]->sequence() || bound[0]->dict()) return InvalidData("unhashable type: '{}'", bound[0]->TypeName());
  if (const Value* found = self.dict()->Find(*bound[0])) return *found;
  return bound[1] ? *bound[1] : Value();
}

template <SequenceKind kKind>
Result<Value> DictView(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(BindArgs("items", args, {}).status());
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict()->entries()) {
    if (kKind == SequenceKind::kItems) {
      ASSIGN_OR_RETURN(Value pair, MakeSequence(runtime.budget(), {key, value}, SequenceKind::kTuple));
      items.push_back(std::move(pair));
    } else {
      items.push_back(kKind == SequenceKind::kKeys ? key : value);
    }
  }
  return MakeSequence(runtime.budget(), std::move(items), kKind);
}

}  // namespace

MethodFn FindStrMethod(std::string_view name) {
  static const std::unordered_map<std::string_view, MethodFn> kMethods = {
      {"strip", StrStrip<Side::kBoth>},
      {"lstrip", StrStrip<Side::kLeft>},
      {"rstrip", StrStrip<Side::kRight>},
      {"split", StrSplit<false>},
      {"rsplit", StrSplit<true>},
      {"splitlines", StrSplitLines},
      {"partition", StrPartition<false>},
      {"rpartition", StrPartition<true>},
      {"replace", StrReplace},
      {"startswith", StrHasAffix<true>},
      {"endswith", StrHasAffix<false>},
      {"removeprefix", StrRemoveAffix<true>},
      {"removesuffix", StrRemoveAffix<false>},
      {"find", StrFind<FindStyle::kFind>},
      {"rfind", StrFind<FindStyle::kRFind>},
      {"index", StrFind<FindStyle::kIndex>},
      {"rindex", StrFind<FindStyle::kRIndex>},
      {"count", StrFind<FindStyle::kCount>},
      {"upper", StrCase<CaseStyle::kUpper>},
      {"lower", StrCase<CaseStyle::kLower>},
      {"title", StrCase<CaseStyle::kTitle>},
      {"capitalize", StrCase<CaseStyle::kCapitalize>},
      {"swapcase", StrCase<CaseStyle::kSwap>},
      {"casefold", StrCase<CaseStyle::kFold>},
      {"join", StrJoin},
      {"format", StrFormat},
      {"isalpha", StrAll<IsAlpha>},
      {"isalnum", StrAll<IsAlphaNumeric>},
      {"isdigit", StrAll<IsDecimal>},
      {"isdecimal", StrAll<IsDecimal>},
      {"isnumeric", StrAll<IsNumeric>},
      {"isspace", StrAll<IsSpace>},
      {"isupper", StrIsCase<true>},
      {"islower", StrIsCase<false>},
      {"ljust", StrPad<Pad::kLeft>},
      {"rjust", StrPad<Pad::kRight>},
      {"center", StrPad<Pad::kCenter>},
      {"zfill", StrZeroFill},
      {"isprintable", StrAll<IsPrintable, true>},
      {"isascii", StrAll<IsAscii, true>},
      {"encode", StrUnsupported},
      {"expandtabs", StrUnsupported},
      {"format_map", StrUnsupported},
      {"isidentifier", StrUnsupported},
      {"istitle", StrUnsupported},
      {"maketrans", StrUnsupported},
      {"translate", StrUnsupported},
  };
  const auto it = kMethods.find(name);
  return it == kMethods.end() ? nullptr : it->second;
}

MethodFn FindContainerMethod(const Value& self, std::string_view name) {
  if (self.dict()) {
    if (name == "get") return DictGet;
    if (name == "items") return DictView<SequenceKind::kItems>;
    if (name == "keys") return DictView<SequenceKind::kKeys>;
    if (name == "values") return DictView<SequenceKind::kValues>;
    return name == "copy" ? Copy : nullptr;
  }
  if (!self.sequence() || !self.sequence()->IsIndexable()) return nullptr;
  if (name == "index") return SequenceIndex;
  if (name == "count") return SequenceCount;
  return name == "copy" && self.sequence()->kind == SequenceKind::kList ? Copy : nullptr;
}

bool IsMutatingMethod(const Value& self, std::string_view name) {
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  const auto has = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (self.dict()) return has(kDict);
  return self.sequence() && self.sequence()->kind == SequenceKind::kList && has(kList);
}

}  // namespace kvasir::jinja
