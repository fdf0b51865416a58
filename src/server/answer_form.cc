#include "server/answer_form.h"

#include <boost/json/array.hpp>

#include <algorithm>
#include <string>
#include <utility>

#include "decode/json_constraint.h"
#include "decode/json_schema.h"

namespace kvasir::server {
namespace {

constexpr size_t kMostTools = 128;

void Constrain(const ModelContext& model, RequestFields& fields, std::string_view name,
               Result<std::shared_ptr<const JsonGrammar>> grammar, CompletionCall& call) {
  if (!grammar.ok()) return fields.Fail(name, grammar.status().message());
  if (!model.tokens) return fields.Fail(name, "this model has no tokenizer, so its answers' form cannot be chosen");
  for (GenerationRequest& request : call.prompts) {
    request.constraint = MakeJsonConstraint(*grammar, model.tokens);
    // An answer that may not end would never be complete.
    request.sampling.ignore_eos = false;
  }
}

/// The name of a tool's function, once it has been looked at.
std::string ReadTool(RequestFields& fields, const std::string& where, const json::value& tool) {
  const json::object* const object = tool.if_object();
  const json::value* const type = object != nullptr ? object->if_contains("type") : nullptr;
  if (type == nullptr || !type->is_string() || type->get_string() != "function") {
    fields.Fail(where, "a tool is {\"type\": \"function\", \"function\": {…}}");
    return {};
  }
  const json::value* const function = object->if_contains("function");
  const json::value* const name =
      function != nullptr && function->is_object() ? function->get_object().if_contains("name") : nullptr;
  if (name == nullptr || !name->is_string() || name->get_string().empty()) {
    fields.Fail(where + ".function.name", "a function has a name");
    return {};
  }
  return std::string(name->get_string());
}

/// The schema of a call of one of the tools.
json::value CallSchema(const json::array& tools, const std::string& only) {
  json::array calls;
  for (const json::value& tool : tools) {
    const json::object& function = tool.get_object().at("function").get_object();
    if (!only.empty() && function.at("name").get_string() != only) continue;
    const json::value* const parameters = function.if_contains("parameters");
    json::value arguments =
        parameters != nullptr && parameters->is_object() ? *parameters : json::value({{"type", "object"}});
    calls.push_back({{"type", "object"},
                     {"properties", {{"name", {{"const", function.at("name")}}}, {"arguments", std::move(arguments)}}},
                     {"required", json::array{"name", "arguments"}},
                     {"additionalProperties", false}});
  }
  if (calls.size() == 1) return calls.front();
  return json::object{{"anyOf", std::move(calls)}};
}

/// "auto", "none", "required", or the name of the tool to call in `named`.
std::string ReadChoice(RequestFields& fields, std::string& named) {
  const json::value* const choice = fields.Find("tool_choice");
  if (choice == nullptr) return "auto";
  if (choice->is_string()) {
    std::string word(choice->get_string());
    if (word == "auto" || word == "none" || word == "required") return word;
    fields.Fail("tool_choice", fmt::format("\"{}\" is none of auto, none, required", word));
    return "auto";
  }
  named = ReadTool(fields, "tool_choice", *choice);
  return "required";
}

}  // namespace

void KeepToJsonObject(const ModelContext& model, RequestFields& fields, std::string_view name, CompletionCall& call) {
  Constrain(model, fields, name, JsonObjectGrammar(), call);
}

void KeepToJsonSchema(const ModelContext& model, RequestFields& fields, std::string_view name,
                      const json::value& schema, CompletionCall& call) {
  Constrain(model, fields, name, CompileJsonSchema(schema), call);
}

void ReadResponseFormat(const ModelContext& model, RequestFields& fields, CompletionCall& call) {
  const json::object* const format = fields.Object("response_format");
  if (format == nullptr) return;
  RequestFields inner(*format, "response_format.");
  const std::string type = inner.Text("type", 64).value_or("");
  if (type == "json_object") {
    KeepToJsonObject(model, fields, "response_format", call);
  } else if (type == "json_schema") {
    const json::object* const wrapper = inner.Object("json_schema");
    const json::value* const schema = wrapper != nullptr ? wrapper->if_contains("schema") : nullptr;
    if (schema == nullptr) {
      inner.Fail("json_schema.schema", "there is none");
    } else {
      KeepToJsonSchema(model, fields, "response_format.json_schema.schema", *schema, call);
    }
  } else if (type != "text") {
    inner.Fail("type", fmt::format("\"{}\" is none of text, json_object, json_schema", type));
  }
  if (inner.error()) fields.Fail(*inner.error());
}

void ReadTools(const ModelContext& model, RequestFields& fields, CompletionCall& call, ChatPromptOptions& options) {
  const json::array* const tools = fields.Array("tools", kMostTools);
  std::string named;
  const std::string choice = ReadChoice(fields, named);
  if (tools == nullptr || tools->empty()) {
    if (choice == "required") fields.Fail("tool_choice", "there are no tools to choose from");
    return;
  }
  bool found = named.empty();
  for (size_t i = 0; i < tools->size(); ++i) {
    found |= ReadTool(fields, fmt::format("tools[{}]", i), (*tools)[i]) == named;
  }
  if (!found) fields.Fail("tool_choice", fmt::format("there is no tool \"{}\"", named));
  if (!fields.ok() || choice == "none") return;
  const ToolSyntax syntax = model.chat != nullptr ? ToolSyntaxOf(model.chat->source()) : ToolSyntax::kNone;
  if (syntax == ToolSyntax::kNone) {
    return fields.Fail("tools", "this model's chat template knows no tools that this server could read calls of");
  }
  options.variables["tools"] = *tools;
  call.tools = syntax;
  if (choice == "required") {
    if (call.prompts.front().constraint) return fields.Fail("tool_choice", "does not go with response_format");
    // The answer is a call and nothing else, whatever the model's own way to write one.
    call.tools = ToolSyntax::kPlainObject;
    Constrain(model, fields, "tools", CompileJsonSchema(CallSchema(*tools, named)), call);
    return;
  }
  if (ToolMarksAreSpecial(syntax)) call.prompts.front().skip_special = false;
}

}  // namespace kvasir::server
