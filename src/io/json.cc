#include "io/json.h"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <charconv>
#include <cmath>
#include <new>

#include "base/utf8.h"

namespace kvasir {
namespace {

using ErrorCode = boost::json::error_code;

/// Builds the document while it is parsed. Boost's own handler collects an object's members and keeps the last of two
/// with one key; here a member enters its object when its key is read, so that a second one is seen at its place and
/// costs no hashing of its own.
class DomHandler {
 public:
  // Boost's parser asks for these limits by name; JsonLimits bounds the whole document instead.
  static constexpr size_t max_array_size = static_cast<size_t>(-1);
  static constexpr size_t max_object_size = static_cast<size_t>(-1);
  static constexpr size_t max_string_size = static_cast<size_t>(-1);
  static constexpr size_t max_key_size = static_cast<size_t>(-1);

  explicit DomHandler(size_t max_values) : values_left_(max_values) {}

  json::value& root() { return root_; }
  /// Why the handler stopped the parser; empty when it did not.
  const std::string& problem() const { return problem_; }

  bool on_document_begin(ErrorCode&) { return true; }
  bool on_document_end(ErrorCode&) { return true; }

  bool on_object_begin(ErrorCode& ec) { return Open(json::object(), ec); }
  bool on_object_end(size_t, ErrorCode&) { return Close(); }
  bool on_array_begin(ErrorCode& ec) { return Open(json::array(), ec); }
  bool on_array_end(size_t, ErrorCode&) { return Close(); }

  bool on_key_part(json::string_view part, size_t, ErrorCode&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_key(json::string_view last, size_t, ErrorCode& ec) {
    text_.append(last.data(), last.size());
    const auto [member, inserted] = open_.back()->get_object().emplace(text_, nullptr);
    if (!inserted) return Stop(fmt::format("the key \"{}\" stands twice in one object", Shorten(text_)), ec);
    slot_ = &member->value();
    text_.clear();
    return true;
  }
  bool on_string_part(json::string_view part, size_t, ErrorCode&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_string(json::string_view last, size_t, ErrorCode& ec) {
    if (text_.empty()) return Add(last, ec);
    text_.append(last.data(), last.size());
    const bool added = Add(json::string_view(text_), ec);
    text_.clear();
    return added;
  }
  bool on_number_part(json::string_view part, ErrorCode&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_int64(int64_t i, json::string_view, ErrorCode& ec) {
    text_.clear();
    return Add(i, ec);
  }
  bool on_uint64(uint64_t u, json::string_view, ErrorCode& ec) {
    text_.clear();
    return Add(u, ec);
  }
  bool on_double(double approximate, json::string_view last, ErrorCode& ec) {
    text_.append(last.data(), last.size());
    // Boost 1.81 rounds some decimals to the neighbour of the nearest double; from_chars is exact. What it calls out
    // of range is either too large (refused) or so small that Boost's zero is right.
    double exact = approximate;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), exact);
    if (error == std::errc::result_out_of_range) exact = approximate;
    if (!std::isfinite(exact)) return Stop(fmt::format("the number {} does not fit a double", Shorten(text_)), ec);
    text_.clear();
    return Add(exact, ec);
  }
  bool on_bool(bool b, ErrorCode& ec) { return Add(b, ec); }
  bool on_null(ErrorCode& ec) { return Add(nullptr, ec); }
  bool on_comment_part(json::string_view, ErrorCode&) { return true; }
  bool on_comment(json::string_view, ErrorCode&) { return true; }

  static std::string Shorten(std::string_view text) {
    constexpr size_t kLongest = 64;
    if (text.size() <= kLongest) return ReplaceInvalidUtf8(text);
    text = text.substr(0, kLongest);
    text.remove_suffix(IncompleteUtf8Suffix(text));
    return ReplaceInvalidUtf8(text) + "…";
  }

 private:
  bool Stop(std::string problem, ErrorCode& ec) {
    problem_ = std::move(problem);
    ec = boost::json::error::input_error;
    return false;
  }

  /// Puts a value where it belongs: into the member just named, at the end of the open array, or as the root.
  /// Pointers into parents stay valid, since a parent grows only after its open child is closed.
  template <typename T>
  bool Add(T&& value, ErrorCode& ec) {
    if (values_left_-- == 0) {
      values_left_ = 0;
      return Stop("there are more values in it than the limit allows", ec);
    }
    if (open_.empty()) {
      root_ = std::forward<T>(value);
      added_ = &root_;
    } else if (open_.back()->is_array()) {
      added_ = &open_.back()->get_array().emplace_back(std::forward<T>(value));
    } else {
      *slot_ = std::forward<T>(value);
      added_ = slot_;
    }
    return true;
  }

  template <typename Container>
  bool Open(Container&& container, ErrorCode& ec) {
    if (!Add(std::forward<Container>(container), ec)) return false;
    open_.push_back(added_);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  json::value root_;
  std::vector<json::value*> open_;  // the containers around the place being read, outermost first
  json::value* slot_ = nullptr;     // the member whose key was read last
  json::value* added_ = nullptr;
  std::string text_;  // parts of a key, string or number so far
  size_t values_left_;
  std::string problem_;
};

std::string Problem(const ErrorCode& ec, const DomHandler& handler, const JsonLimits& limits) {
  if (!handler.problem().empty()) return handler.problem();
  if (ec == boost::json::error::incomplete) return "the text ends inside a value; the file may be truncated";
  if (ec == boost::json::error::extra_data) return "text follows after the end of the document";
  if (ec == boost::json::error::too_deep) return fmt::format("nested more than {} levels deep", limits.max_depth);
  return ec.message();
}

/// What boost calls a syntax error, named where people run into it; null otherwise.
const char* KnownMistake(std::string_view text, size_t offset) {
  if (offset == 0 && text.starts_with("\xEF\xBB\xBF")) return "the file begins with a byte order mark, remove it";
  // The parser stops behind the sign of -Infinity.
  const std::string_view rest = text.substr(std::min(offset, text.size()));
  if (rest.starts_with("NaN") || rest.starts_with("Infinity")) return "NaN and Infinity are no JSON numbers";
  return nullptr;
}

/// "line 3, column 7 (byte 41)"; all count from 1 except bytes.
std::string Place(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  const size_t newline = before.rfind('\n');
  const size_t column = newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
  return fmt::format("line {}, column {} (byte {})", line, column, before.size());
}

Result<json::value> ParseChecked(std::string_view text, std::string_view what, const JsonLimits& limits) {
  json::parse_options options;
  options.max_depth = limits.max_depth;
  boost::json::basic_parser<DomHandler> parser(options, limits.max_values);
  ErrorCode ec;
  size_t read = parser.write_some(false, text.data(), text.size(), ec);
  if (!ec) {
    const size_t rest = text.find_first_not_of(" \t\r\n", read);
    if (rest != std::string_view::npos) {
      read = rest;
      ec = boost::json::error::extra_data;
    }
  }
  if (!ec) return std::move(parser.handler().root());
  if (const char* mistake = KnownMistake(text, read); mistake != nullptr && ec == boost::json::error::syntax) {
    return InvalidData("{}: {}: {}", what, Place(text, read), mistake);
  }
  // The parser says "syntax error" for bytes that are no UTF-8, which helps nobody.
  const std::string_view around = text.substr(0, std::min(text.size(), read + 4));
  for (size_t i = 0; ec == boost::json::error::syntax && i < around.size();) {
    const Utf8Unit unit = DecodeUtf8(around, i);
    if (!unit.valid && (around.size() == text.size() || i + unit.length < around.size())) {
      return InvalidData("{}: {}: the text is not valid UTF-8", what, Place(text, i));
    }
    i += unit.length;
  }
  return InvalidData("{}: {}: {}", what, Place(text, read), Problem(ec, parser.handler(), limits));
}

}  // namespace

Result<json::value> ParseJson(std::string_view text, std::string_view what, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return ResourceExhausted("{}: {} bytes of JSON, the limit is {}", what, text.size(), limits.max_bytes);
  }
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return InvalidData("{}: holds no JSON, it is empty", what);
  }
  try {
    return ParseChecked(text, what, limits);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("{}: no memory left to read {} bytes of JSON", what, text.size());
  } catch (const std::exception& error) {
    return InvalidData("{}: {}", what, error.what());
  }
}

Result<json::value> ParseJsonFile(const std::filesystem::path& path, const JsonLimits& limits) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits.max_bytes));
  return ParseJson(text, path.string(), limits);
}

}  // namespace kvasir
