#include "decode/json_schema.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "decode/json_grammar_builder.h"
#include "decode/json_number.h"
#include "decode/json_pattern.h"
#include "decode/json_pointer.h"
#include "decode/json_schema_keywords.h"

namespace kvasir {
namespace {

constexpr int64_t kWork = int64_t{1} << 24;
constexpr size_t kMostProperties = 5000;
constexpr size_t kMostEnumValues = 5000;
constexpr size_t kMostAlternatives = 500;  // of one anyOf
constexpr size_t kMostNameBytes = 1024;
constexpr int64_t kMostMultiple = 4096;

/// Whether a is the smaller one: -1, 0 or 1.
int Compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int order = a.whole.size() != b.whole.size() ? (a.whole.size() < b.whole.size() ? -1 : 1) : a.whole.compare(b.whole);
  if (order == 0) order = a.fraction.compare(b.fraction);
  return (order > 0 ? 1 : order < 0 ? -1 : 0) * (a.negative ? -1 : 1);
}

/// One schema of the document that is to become a rule.
struct Task {
  int32_t rule;
  const json::value* schema;
  const JsonPlace* place;
};

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const json::value& document) : document_(document), budget_(kWork), builder_(budget_) {}

  Result<JsonGrammar> Compile() {
    const int32_t root = RuleOf(document_, nullptr);
    while (!tasks_.empty()) {
      const Task task = tasks_.front();
      tasks_.pop_front();
      RETURN_IF_ERROR(At(CompileSchema(task), task.place));
    }
    return builder_.Finish(root);
  }

 private:
  using Object = json::object;

  static Status At(const Status& status, const JsonPlace* place) {
    if (status.ok()) return status;
    return InvalidArgument("schema at {}: {}", PointerOf(place), status.message());
  }

  const JsonPlace* Inside(const JsonPlace* place, std::string_view key) {
    places_.push_back({place, key, -1});
    return &places_.back();
  }
  const JsonPlace* Inside(const JsonPlace* place, std::string_view key, size_t index) {
    places_.push_back({Inside(place, key), {}, static_cast<int64_t>(index)});
    return &places_.back();
  }

  /// The rule of a schema of the document, which is compiled when its turn comes.
  int32_t RuleOf(const json::value& schema, const JsonPlace* place) {
    const auto [found, added] = rules_.try_emplace(&schema, 0);
    if (added) {
      found->second = builder_.NewRule();
      tasks_.push_back({found->second, &schema, place});
    }
    return found->second;
  }

  Status CompileSchema(const Task& task) {
    RETURN_IF_ERROR(budget_.Spend(16));
    const json::value& schema = *task.schema;
    if (schema.is_bool() && schema.get_bool()) return CompileAny(task);
    if (schema.is_bool()) return InvalidArgument("it is false, which nothing satisfies; leave it out");
    if (!schema.is_object()) return InvalidArgument("a schema is an object, true or false");
    const Object& object = schema.get_object();
    if (object.contains("$ref")) return CompileRef(task, object);
    if (object.contains("anyOf")) return CompileAnyOf(task, object, "anyOf");
    if (object.contains("allOf")) return CompileAnyOf(task, object, "allOf");
    if (object.contains("enum") || object.contains("const")) return CompileEnum(task, object);
    return CompileTypes(task, object);
  }

  Status CompileAny(const Task& task) {
    ASSIGN_OR_RETURN(const int32_t any, builder_.Any());
    builder_.SetRule(task.rule, {builder_.Jump(any)}, {{.rules = {}, .jump = any}});
    return OkStatus();
  }

  Status CompileRef(const Task& task, const Object& object) {
    RETURN_IF_ERROR(CheckNothingElse(object, {"$ref"}));
    const json::value& reference = object.at("$ref");
    if (!reference.is_string()) return InvalidArgument("\"$ref\" must be a string");
    ASSIGN_OR_RETURN(const json::value* target, ResolvePointer(document_, JsonView(reference.get_string())));
    const int32_t rule = RuleOf(*target, Inside(task.place, "$ref"));
    builder_.SetRule(task.rule, {builder_.Jump(rule)}, {{.rules = {}, .jump = rule}});
    return OkStatus();
  }

  Status CompileAnyOf(const Task& task, const Object& object, std::string_view keyword) {
    RETURN_IF_ERROR(CheckNothingElse(object, {keyword}));
    const json::value& list = object.at(keyword);
    if (!list.is_array() || list.get_array().empty())
      return InvalidArgument("\"{}\" must be a list of schemas", keyword);
    if (keyword == "allOf" && list.get_array().size() != 1) {
      return InvalidArgument("\"allOf\" of several schemas is not supported; write them as one");
    }
    if (list.get_array().size() > kMostAlternatives) {
      return InvalidArgument("\"anyOf\" has {} schemas; at most {} are possible", list.get_array().size(),
                             kMostAlternatives);
    }
    std::vector<int32_t> nodes;
    std::vector<JsonNeeds> needs;
    for (size_t i = 0; i < list.get_array().size(); ++i) {
      const int32_t rule = RuleOf(list.get_array()[i], Inside(task.place, keyword, i));
      nodes.push_back(builder_.Jump(rule));
      needs.push_back({.rules = {}, .jump = rule});
    }
    builder_.SetRule(task.rule, nodes, std::move(needs));
    return OkStatus();
  }

  Status CompileEnum(const Task& task, const Object& object) {
    RETURN_IF_ERROR(CheckNothingElse(object, {"enum", "const", "type"}));
    ASSIGN_OR_RETURN(const uint32_t types, ReadJsonTypes(object));
    std::vector<const json::value*> values;
    if (const json::value* constant = object.if_contains("const")) values.push_back(constant);
    if (const json::value* list = object.if_contains("enum")) {
      if (!list->is_array() || list->get_array().empty()) return InvalidArgument("\"enum\" must be a list of values");
      if (!values.empty()) return InvalidArgument("\"enum\" beside \"const\" is not supported; leave one of them out");
      enum_values_ += list->get_array().size();
      if (enum_values_ > kMostEnumValues) {
        return InvalidArgument("the schema's enums have more than {} values", kMostEnumValues);
      }
      for (const json::value& value : list->get_array()) values.push_back(&value);
    }
    std::vector<std::string> texts;
    for (const json::value* value : values) {
      if ((JsonTypesOf(*value) & types) == 0) continue;
      WriteJsonPlainly(*value, texts.emplace_back());
      RETURN_IF_ERROR(budget_.Spend(static_cast<int64_t>(texts.back().size())));
    }
    if (texts.empty()) return InvalidArgument("none of its values is of its type");
    builder_.SetRule(task.rule, {builder_.Texts(std::move(texts))}, {{}});
    return OkStatus();
  }

  Status CompileTypes(const Task& task, const Object& object) {
    RETURN_IF_ERROR(CheckJsonKeywords(object));
    ASSIGN_OR_RETURN(const uint32_t types, ReadJsonTypes(object));
    if (types == kAnyJsonType) return CompileAny(task);
    std::vector<int32_t> nodes;
    std::vector<JsonNeeds> needs;
    const auto add = [&](int32_t node) {
      nodes.push_back(node);
      needs.emplace_back();
    };
    if (types & kJsonNull) add(builder_.Texts({"null"}));
    if (types & kJsonBoolean) add(builder_.Texts({"true", "false"}));
    if (types & (kJsonInteger | kJsonNumber)) {
      ASSIGN_OR_RETURN(const int32_t node, CompileNumber(object, (types & kJsonNumber) == 0));
      add(node);
    }
    if (types & kJsonString) {
      ASSIGN_OR_RETURN(const int32_t node, CompileString(object));
      add(node);
    }
    if (types & kJsonArray) {
      JsonNeeds own;
      ASSIGN_OR_RETURN(const int32_t node, CompileArray(task, object, own));
      nodes.push_back(node);
      needs.push_back(std::move(own));
    }
    if (types & kJsonObject) {
      JsonNeeds own;
      ASSIGN_OR_RETURN(const int32_t node, CompileObject(task, object, own));
      nodes.push_back(node);
      needs.push_back(std::move(own));
    }
    builder_.SetRule(task.rule, nodes, std::move(needs));
    return OkStatus();
  }

  Result<int32_t> CompileNumber(const Object& object, bool integer) {
    NumberRange range;
    const auto bound = [&](std::string_view key, bool exclusive, bool lower) -> Status {
      const json::value* value = object.if_contains(key);
      if (value == nullptr) return OkStatus();
      auto decimal = Decimal::Of(*value);
      if (!decimal.ok()) return decimal.status().WithContext(fmt::format("\"{}\"", key));
      std::optional<Decimal>& at = lower ? range.min : range.max;
      bool& open = lower ? range.above_min : range.below_max;
      const int order = at ? Compare(*decimal, *at) * (lower ? 1 : -1) : 1;
      if (order < 0) return OkStatus();
      open = exclusive || (order == 0 && open);
      at = *std::move(decimal);
      return OkStatus();
    };
    RETURN_IF_ERROR(bound("minimum", false, true));
    RETURN_IF_ERROR(bound("exclusiveMinimum", true, true));
    RETURN_IF_ERROR(bound("maximum", false, false));
    RETURN_IF_ERROR(bound("exclusiveMaximum", true, false));
    const json::value* multiple = object.if_contains("multipleOf");
    // Multiples of a whole number are whole.
    auto dfa = CompileJsonNumber(integer || multiple != nullptr, range, budget_);
    if (!dfa.ok()) return dfa.status().WithContext("the range of numbers");
    if (multiple != nullptr) {
      const auto k = JsonReader(object, "schema").Int({"multipleOf"}, 1, kMostMultiple);
      if (!k.ok() || multiple->is_null()) {
        return InvalidArgument("\"multipleOf\" is supported for whole numbers from 1 to {}", kMostMultiple);
      }
      dfa = RestrictToMultiples(*dfa, *k, budget_);
      if (!dfa.ok()) return dfa.status().WithContext("\"multipleOf\" in this range");
    }
    return builder_.Automaton(*dfa, false);
  }

  Result<int32_t> CompileString(const Object& object) {
    ASSIGN_OR_RETURN(const JsonCounts length, ReadJsonCounts(object, "minLength", "maxLength"));
    const json::value* pattern = object.if_contains("pattern");
    const json::value* format = object.if_contains("format");
    if (pattern == nullptr && format == nullptr) return builder_.PlainString(length.least, length.most);
    if (pattern != nullptr && format != nullptr) {
      return InvalidArgument("\"pattern\" beside \"format\" is not supported; leave one of them out");
    }
    const std::string_view key = pattern != nullptr ? "pattern" : "format";
    const json::value& value = pattern != nullptr ? *pattern : *format;
    if (!value.is_string()) return InvalidArgument("\"{}\" must be a string", key);
    std::string_view expression = JsonView(value.get_string());
    if (format != nullptr) {
      expression = JsonFormatPattern(expression);
      if (expression.empty()) {
        return InvalidArgument("\"format\" \"{}\" is not supported; these are: {}", JsonView(value.get_string()),
                               JsonFormatNames());
      }
    }
    const auto [known, added] = patterns_.try_emplace({std::string(expression), {length.least, length.most}}, 0);
    if (!added) return known->second;
    auto dfa = CompileJsonPattern(expression, budget_);
    if (dfa.ok() && (length.least > 0 || length.most >= 0)) {
      dfa = RestrictLength(*dfa, length.least, length.most, budget_);
    }
    if (!dfa.ok()) return dfa.status().WithContext(fmt::format("\"{}\"", key));
    known->second = builder_.Automaton(*dfa, true);
    return known->second;
  }

  Result<int32_t> CompileArray(const Task& task, const Object& object, JsonNeeds& needs) {
    ASSIGN_OR_RETURN(const JsonCounts count, ReadJsonCounts(object, "minItems", "maxItems"));
    std::vector<int32_t> prefix;
    if (const json::value* list = object.if_contains("prefixItems")) {
      if (!list->is_array()) return InvalidArgument("\"prefixItems\" must be a list of schemas");
      for (size_t i = 0; i < list->get_array().size(); ++i) {
        prefix.push_back(RuleOf(list->get_array()[i], Inside(task.place, "prefixItems", i)));
      }
    }
    int32_t items = -1;
    const json::value* schema = object.if_contains("items");
    if (schema == nullptr) {
      ASSIGN_OR_RETURN(items, builder_.Any());
    } else if (schema->is_array()) {
      return InvalidArgument("\"items\" as a list is not supported; \"prefixItems\" is");
    } else if (!schema->is_bool() || schema->get_bool()) {
      items = RuleOf(*schema, Inside(task.place, "items"));
    }
    const auto fixed = static_cast<int64_t>(prefix.size());
    if (items < 0 && count.least > fixed) {
      return InvalidArgument("\"minItems\" {} are more than there are schemas for", count.least);
    }
    for (int64_t i = 0; i < std::min(count.least, fixed); ++i) needs.rules.push_back(prefix[static_cast<size_t>(i)]);
    if (count.least > fixed) needs.rules.push_back(items);
    return builder_.Array(prefix, items, count.least, count.most);
  }

  Status AddProperty(std::string_view name, int32_t rule, bool required, std::vector<JsonProperty>& properties) {
    if (name.size() > kMostNameBytes) {
      return InvalidArgument("the name of a property has {} bytes; at most {} are possible", name.size(),
                             kMostNameBytes);
    }
    if (++properties_ > kMostProperties) {
      return InvalidArgument("the schema has more than {} properties", kMostProperties);
    }
    properties.push_back({std::string(name), rule, required});
    return OkStatus();
  }

  Result<int32_t> CompileObject(const Task& task, const Object& object, JsonNeeds& needs) {
    const json::value* declared = object.if_contains("properties");
    if (declared != nullptr && !declared->is_object()) return InvalidArgument("\"properties\" must be an object");
    std::vector<std::string_view> required;
    if (const json::value* list = object.if_contains("required")) {
      if (!list->is_array()) return InvalidArgument("\"required\" must be a list of names");
      for (const json::value& name : list->get_array()) {
        if (!name.is_string()) return InvalidArgument("\"required\" must be a list of names");
        required.push_back(JsonView(name.get_string()));
      }
    }
    std::vector<std::string_view> sorted = required;
    std::ranges::sort(sorted);
    int32_t extra = -1;
    const json::value* additional = object.if_contains("additionalProperties");
    const bool open = additional == nullptr ? declared == nullptr : !additional->is_bool() || additional->get_bool();
    if (open && additional != nullptr) {
      extra = RuleOf(*additional, Inside(task.place, "additionalProperties"));
    } else if (open) {
      ASSIGN_OR_RETURN(extra, builder_.Any());
    }
    std::vector<JsonProperty> properties;
    if (declared != nullptr) {
      const JsonPlace* inside = Inside(task.place, "properties");
      for (const auto& member : declared->get_object()) {
        const std::string_view name = JsonView(member.key());
        const int32_t rule = RuleOf(member.value(), Inside(inside, name));
        const bool must = std::ranges::binary_search(sorted, name);
        RETURN_IF_ERROR(AddProperty(name, rule, must, properties));
      }
    }
    // What is required without a schema of its own is an additional property.
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    for (const std::string_view name : sorted) {
      if (declared != nullptr && declared->get_object().contains(name)) continue;
      if (extra < 0) return InvalidArgument("\"required\" names \"{}\", which is not among its properties", name);
      RETURN_IF_ERROR(AddProperty(name, extra, true, properties));
    }
    for (const JsonProperty& property : properties) {
      if (property.required) needs.rules.push_back(property.rule);
    }
    return builder_.Object(properties, extra);
  }

  const json::value& document_;
  WorkBudget budget_;
  JsonGrammarBuilder builder_;
  std::deque<JsonPlace> places_;  // stay where they are
  std::deque<Task> tasks_;
  std::unordered_map<const json::value*, int32_t> rules_;
  std::map<std::pair<std::string, std::pair<int64_t, int64_t>>, int32_t> patterns_;
  size_t properties_ = 0;
  size_t enum_values_ = 0;
};

}  // namespace

Result<std::shared_ptr<const JsonGrammar>> CompileJsonSchema(const json::value& schema) {
  ASSIGN_OR_RETURN(JsonGrammar grammar, SchemaCompiler(schema).Compile());
  return std::make_shared<const JsonGrammar>(std::move(grammar));
}

Result<std::shared_ptr<const JsonGrammar>> CompileJsonSchemaText(std::string_view text, std::string_view what) {
  constexpr JsonLimits kLimits{.max_bytes = kMostJsonSchemaBytes, .max_values = 1u << 17};
  ASSIGN_OR_RETURN(const json::value schema, ParseJson(text, what, kLimits));
  auto grammar = CompileJsonSchema(schema);
  if (!grammar.ok()) return grammar.status().WithContext(what);
  return grammar;
}

std::shared_ptr<const JsonGrammar> JsonObjectGrammar() {
  static const std::shared_ptr<const JsonGrammar> kGrammar = [] {
    auto grammar = CompileJsonSchema(json::value{{"type", "object"}});
    KVASIR_CHECK(grammar.ok());
    return *std::move(grammar);
  }();
  return kGrammar;
}

}  // namespace kvasir
