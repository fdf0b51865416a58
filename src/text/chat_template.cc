#include "text/chat_template.h"

#include <limits>
#include <new>
#include <stdexcept>

#include "base/utf8.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

namespace kvasir {
namespace {

using jinja::Str;
using jinja::Value;

// Levels of blocks, expressions and macro calls at run time, in multiples of the depth allowed in the source.
constexpr int kRuntimeDepthFactor = 4;
// Extra fuel for every byte of messages and variables, so that long conversations render like short ones.
constexpr uint64_t kFuelPerInputByte = 64;

// Beyond this the recursion could run out of stack.
constexpr int kMaxDepth = 256;

Status CheckLimits(const TemplateLimits& limits) {
  if (limits.max_depth >= 1 && limits.max_depth <= kMaxDepth) return OkStatus();
  return InvalidArgument("TemplateLimits::max_depth must be between 1 and {}, not {}", kMaxDepth, limits.max_depth);
}

Value TrustedString(std::string_view text) { return Value(Str::Trusted(ReplaceInvalidUtf8(text))); }

// Turns JSON into template values; its strings are tainted.
class Converter {
 public:
  explicit Converter(jinja::Budget& budget) : budget_(budget) {}

  Result<Value> Convert(const boost::json::value& value, int depth = 0) {
    if (depth >= jinja::kMaxValueDepth / 2) {
      return ResourceExhausted("messages or variables are nested deeper than {} levels", jinja::kMaxValueDepth / 2);
    }
    switch (value.kind()) {
      case boost::json::kind::null: return Value();
      case boost::json::kind::bool_: return Value(value.get_bool());
      case boost::json::kind::int64: return Value(int64_t{value.get_int64()});
      case boost::json::kind::double_: return Value(value.get_double());
      case boost::json::kind::string: return Outside(value.get_string());
      case boost::json::kind::uint64: break;
      case boost::json::kind::array: return ConvertArray(value.get_array(), depth);
      case boost::json::kind::object: return ConvertObject(value.get_object(), depth, false);
    }
    if (value.get_uint64() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Unsupported("messages or variables hold the integer {}, which does not fit 64 bits with a sign",
                         value.get_uint64());
    }
    return Value(static_cast<int64_t>(value.get_uint64()));
  }

  // The list of messages: the role of each is the caller's, not the user's.
  Result<Value> ConvertMessages(const boost::json::array& messages) {
    std::vector<Value> items;
    items.reserve(messages.size());
    for (const boost::json::value& message : messages) {
      ASSIGN_OR_RETURN(Value item,
                       message.is_object() ? ConvertObject(message.get_object(), 1, true) : Convert(message, 1));
      items.push_back(std::move(item));
    }
    return jinja::MakeSequence(budget_, std::move(items));
  }

 private:
  static Value Outside(std::string_view text) { return Value(Str::Outside(ReplaceInvalidUtf8(text))); }

  Result<Value> ConvertArray(const boost::json::array& array, int depth) {
    std::vector<Value> items;
    items.reserve(array.size());
    for (const boost::json::value& element : array) {
      ASSIGN_OR_RETURN(Value item, Convert(element, depth + 1));
      items.push_back(std::move(item));
    }
    return jinja::MakeSequence(budget_, std::move(items));
  }

  Result<Value> ConvertObject(const boost::json::object& object, int depth, bool is_message) {
    jinja::Dict dict;
    for (const auto& [key, element] : object) {
      const bool role = is_message && key == "role" && element.is_string();
      ASSIGN_OR_RETURN(Value item,
                       role ? Result<Value>(TrustedString(element.get_string())) : Convert(element, depth + 1));
      RETURN_IF_ERROR(dict.Set(Outside(key), std::move(item)));
    }
    return jinja::MakeDict(budget_, std::move(dict));
  }

  jinja::Budget& budget_;
};

// About how many bytes a JSON value holds. Recursion is bounded as in Convert.
uint64_t InputBytes(const boost::json::value& value, int depth = 0) {
  uint64_t bytes = 16;
  if (depth >= jinja::kMaxValueDepth / 2) return bytes;
  if (value.is_string()) bytes += value.get_string().size();
  if (value.is_array()) {
    for (const auto& element : value.get_array()) bytes += InputBytes(element, depth + 1);
  }
  if (value.is_object()) {
    for (const auto& [key, element] : value.get_object()) bytes += key.size() + InputBytes(element, depth + 1);
  }
  return bytes;
}

uint64_t TotalFuel(uint64_t fuel, const boost::json::array& messages, const boost::json::object& variables) {
  uint64_t bytes = 0;
  for (const auto& message : messages) bytes += InputBytes(message);
  for (const auto& [key, value] : variables) bytes += key.size() + InputBytes(value);
  const uint64_t extra = bytes * kFuelPerInputByte;
  return fuel > std::numeric_limits<uint64_t>::max() - extra ? fuel : fuel + extra;
}

Result<RenderedChat> RenderTemplate(const jinja::Template& source, const boost::json::array& messages,
                                    const RenderOptions& options) {
  const TemplateLimits& limits = options.limits;
  jinja::Runtime runtime(TotalFuel(limits.fuel, messages, options.variables), limits.max_output_bytes, options.now);
  jinja::Interpreter interpreter(source, runtime, limits.max_depth * kRuntimeDepthFactor);
  Converter converter(runtime.budget());

  // What apply_chat_template passes: tools and documents always, special tokens where the tokenizer has them.
  interpreter.Define("tools", Value());
  interpreter.Define("documents", Value());
  interpreter.Define("add_generation_prompt", Value(options.add_generation_prompt));
  if (!options.bos_token.empty()) interpreter.Define("bos_token", TrustedString(options.bos_token));
  if (!options.eos_token.empty()) interpreter.Define("eos_token", TrustedString(options.eos_token));
  for (const auto& [key, element] : options.variables) {
    if (key == "messages" || key == "add_generation_prompt") {
      return InvalidArgument("RenderOptions::variables cannot hold '{}'; it is passed otherwise", std::string(key));
    }
    ASSIGN_OR_RETURN(Value value, converter.Convert(element));
    interpreter.Define(key, std::move(value));
  }
  ASSIGN_OR_RETURN(Value list, converter.ConvertMessages(messages));
  interpreter.Define("messages", std::move(list));

  jinja::StrBuilder out(runtime.budget());
  RETURN_IF_ERROR(interpreter.Run(out));
  RETURN_IF_ERROR(out.status());
  RenderedChat chat;
  chat.text = out.TakeText();
  chat.literal = out.TakeTaint();
  return chat;
}

}  // namespace

struct ChatTemplate::Program {
  std::shared_ptr<const jinja::Template> source;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::Compile(std::string_view source, const TemplateLimits& limits) try {
  RETURN_IF_ERROR(CheckLimits(limits));
  if (source.size() > limits.max_source_bytes) {
    return ResourceExhausted("the chat template has {} bytes; TemplateLimits::max_source_bytes is {}", source.size(),
                             limits.max_source_bytes);
  }
  if (!IsValidUtf8(source)) return InvalidData("the chat template is not valid UTF-8");
  auto program = std::make_unique<Program>();
  ASSIGN_OR_RETURN(program->source, jinja::Parse(source, limits.max_depth));
  return ChatTemplate(std::move(program));
} catch (const std::bad_alloc&) {
  return ResourceExhausted("no memory left to compile the chat template");
} catch (const std::length_error&) {
  return ResourceExhausted("no memory left to compile the chat template");
}

Result<RenderedChat> ChatTemplate::Render(const boost::json::array& messages, const RenderOptions& options) const try {
  RETURN_IF_ERROR(CheckLimits(options.limits));
  return RenderTemplate(*program_->source, messages, options);
} catch (const std::bad_alloc&) {
  return ResourceExhausted("no memory left to render the chat template");
} catch (const std::length_error&) {
  return ResourceExhausted("no memory left to render the chat template");
}

}  // namespace kvasir
