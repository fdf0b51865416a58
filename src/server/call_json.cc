#include "server/call_json.h"

#include <boost/json/basic_parser_impl.hpp>

#include <string_view>
#include <utility>

namespace kvasir::server {
namespace {

namespace json = boost::json;

constexpr size_t kMostDepth = 128;

}  // namespace

/// Watches the parser. A call's fields stand at the depth of its object; what is deeper belongs to one of them.
class CallJson::Handler {
 public:
  // Boost's parser asks for these limits by name; a model's answer is bounded by its context.
  static constexpr size_t max_array_size = static_cast<size_t>(-1);
  static constexpr size_t max_object_size = static_cast<size_t>(-1);
  static constexpr size_t max_string_size = static_cast<size_t>(-1);
  static constexpr size_t max_key_size = static_cast<size_t>(-1);

  /// Whether the byte that comes belongs to arguments that are an object or a list.
  bool inside() const { return arguments_state_ == State::kInside; }
  void AddByte(char byte) { arguments_ += byte; }
  const std::string& name() const { return name_; }

  /// What has become known since it was asked last.
  Step Take() {
    Step step;
    if (!name_.empty() && arguments_state_ != State::kNone) {
      step.begins = !std::exchange(told_, true);
      step.arguments = std::exchange(arguments_, {});
      step.ends = arguments_state_ == State::kComplete && !std::exchange(over_, true);
    }
    step.closed = std::exchange(closed_, false);
    step.done = begun_ && depth_ == 0;
    return step;
  }

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }

  bool on_object_begin(json::error_code& ec) {
    if (depth_ == CallDepth() - 1) {
      BeginCall();
    } else if (!OpenValue(ec)) {
      return false;
    }
    ++depth_;
    return true;
  }
  bool on_object_end(size_t, json::error_code& ec) {
    --depth_;
    if (depth_ != CallDepth() - 1) return CloseValue();
    if (arguments_state_ == State::kNone) Complete("{}");
    closed_ = true;
    return !name_.empty() || Stop(ec);
  }
  bool on_array_begin(json::error_code& ec) {
    if (!begun_) {
      begun_ = list_ = true;
    } else if (!OpenValue(ec)) {
      return false;
    }
    ++depth_;
    return true;
  }
  bool on_array_end(size_t, json::error_code&) {
    --depth_;
    return CloseValue();
  }

  bool on_key_part(json::string_view part, size_t, json::error_code&) { return AddText(part); }
  bool on_key(json::string_view last, size_t, json::error_code&) {
    AddText(last);
    const std::string key = std::exchange(text_, {});
    if (depth_ != CallDepth()) return true;
    field_ = Field::kOther;
    if (key == "name" && name_.empty()) field_ = Field::kName;
    if ((key == "arguments" || key == "parameters") && arguments_state_ == State::kNone) field_ = Field::kArguments;
    return true;
  }
  bool on_string_part(json::string_view part, size_t, json::error_code&) { return AddText(part); }
  bool on_string(json::string_view last, size_t, json::error_code& ec) {
    AddText(last);
    std::string text = std::exchange(text_, {});
    if (depth_ == CallDepth() && field_ == Field::kName) {
      name_ = std::move(text);
      return !name_.empty() || Stop(ec);
    }
    return Scalar(std::move(text), ec);
  }
  bool on_number_part(json::string_view part, json::error_code&) { return AddText(part); }
  bool on_int64(int64_t, json::string_view last, json::error_code& ec) { return Number(last, ec); }
  bool on_uint64(uint64_t, json::string_view last, json::error_code& ec) { return Number(last, ec); }
  bool on_double(double, json::string_view last, json::error_code& ec) { return Number(last, ec); }
  bool on_bool(bool value, json::error_code& ec) { return Scalar(value ? "true" : "false", ec); }
  bool on_null(json::error_code& ec) { return Scalar("{}", ec); }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  enum class Field { kOther, kName, kArguments };
  enum class State { kNone, kInside, kComplete };

  int CallDepth() const { return list_ ? 2 : 1; }

  static bool Stop(json::error_code& ec) {
    ec = json::error::input_error;
    return false;
  }

  bool AddText(json::string_view part) {
    text_.append(part.data(), part.size());
    return true;
  }

  void BeginCall() {
    begun_ = true;
    told_ = over_ = false;
    field_ = Field::kOther;
    name_.clear();
    arguments_.clear();
    arguments_state_ = State::kNone;
  }

  /// An object or a list begins that is no call.
  bool OpenValue(json::error_code& ec) {
    if (depth_ < CallDepth()) return Stop(ec);
    if (depth_ > CallDepth()) return true;
    if (field_ == Field::kName) return Stop(ec);
    if (field_ == Field::kArguments) arguments_state_ = State::kInside;
    field_ = Field::kOther;
    return true;
  }
  bool CloseValue() {
    if (depth_ == CallDepth() && arguments_state_ == State::kInside) arguments_state_ = State::kComplete;
    return true;
  }

  bool Number(json::string_view last, json::error_code& ec) {
    AddText(last);
    return Scalar(std::exchange(text_, {}), ec);
  }
  bool Scalar(std::string text, json::error_code& ec) {
    if (depth_ < CallDepth()) return Stop(ec);
    if (depth_ > CallDepth()) return true;
    if (field_ == Field::kName) return Stop(ec);
    if (field_ == Field::kArguments) Complete(std::move(text));
    return true;
  }
  void Complete(std::string arguments) {
    arguments_ = std::move(arguments);
    arguments_state_ = State::kComplete;
  }

  int depth_ = 0;  // of open objects and lists
  bool begun_ = false;
  bool list_ = false;
  std::string text_;  // parts of a key, string or number so far
  // The call that is being read.
  Field field_ = Field::kOther;
  std::string name_;
  std::string arguments_;  // that have not been taken yet
  State arguments_state_ = State::kNone;
  bool told_ = false;    // its beginning has been taken
  bool over_ = false;    // its end has
  bool closed_ = false;  // its object has ended
};

struct CallJson::Parser {
  static json::parse_options Options() {
    json::parse_options options;
    options.max_depth = kMostDepth;
    return options;
  }
  json::basic_parser<Handler> json{Options()};
};

CallJson::CallJson() : parser_(std::make_unique<Parser>()) {}
CallJson::~CallJson() = default;

CallJson::Step CallJson::Feed(char byte) {
  Handler& handler = parser_->json.handler();
  const bool inside = handler.inside();
  json::error_code error;
  parser_->json.write_some(true, &byte, 1, error);
  if (error) return {.broken = true};
  if (inside || handler.inside()) handler.AddByte(byte);  // its brackets belong to it
  return handler.Take();
}

const std::string& CallJson::name() const { return parser_->json.handler().name(); }

}  // namespace kvasir::server
