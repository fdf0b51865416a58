#include "decode/json_grammar.h"

namespace kvasir {

/// Whether one of the properties, by rising number, may come after `count`.
bool JsonGrammar::MayName(const Object& object, std::span<const int32_t> properties, int32_t depth,
                          int64_t count) const {
  const int32_t last = object.next_required[static_cast<size_t>(count)];
  for (auto at = std::ranges::lower_bound(properties, count); at != properties.end() && *at <= last; ++at) {
    if (Fits(object.rules[static_cast<size_t>(*at)], depth)) return true;
  }
  return false;
}

bool JsonGrammar::Passes(const Node& node, Guard guard, int32_t list, int32_t depth, int64_t* count) const {
  if (guard == Guard::kNone) return true;
  const auto shape = static_cast<size_t>(node.shape);
  if (guard == Guard::kMore || guard == Guard::kItem || guard == Guard::kEnough) {
    const Bounds& own = bounds[shape];
    if (guard == Guard::kEnough) return *count >= own.least;
    if (own.most >= 0 && *count >= own.most) return false;
    if (guard == Guard::kItem && !Fits(node.rule, depth)) return false;
    *count = own.Next(*count);
    return true;
  }
  const Object& object = objects[shape];
  const auto all = static_cast<int64_t>(object.rules.size());
  const bool complete = object.next_required[static_cast<size_t>(*count)] == all;
  const bool extra = complete && object.extra_rule >= 0 && Fits(object.extra_rule, depth);
  switch (guard) {
    case Guard::kComplete: return complete;
    case Guard::kExtra:
      if (extra) *count = all;
      return extra;
    case Guard::kNamed: {
      const int32_t property = list;
      if (!MayName(object, {&property, 1}, depth, *count)) return false;
      *count = property + 1;
      return true;
    }
    case Guard::kName:
    case Guard::kAnyMore: {
      if (guard == Guard::kAnyMore && extra) return true;
      const Names& own = name_lists[static_cast<size_t>(list)];
      const auto properties = std::span(names).subspan(static_cast<size_t>(own.first), static_cast<size_t>(own.count));
      return MayName(object, properties, depth, *count);
    }
    default: return false;
  }
}

}  // namespace kvasir
