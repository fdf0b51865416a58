// Status and Result: how kvasir reports everything that a file, a request or a capacity can cause.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace kvasir {

enum class StatusCode {
  kOk,
  kInvalidArgument,    // the caller's value is wrong: a flag, a request field
  kInvalidData,        // a file's content is wrong
  kNotFound,           // a file, tensor or name does not exist
  kUnsupported,        // well-formed, but not something kvasir does
  kResourceExhausted,  // memory, blocks, context or a limit ran out
  kIoError,            // the operating system refused
  kCancelled,          // the caller stopped it
  kInternal,           // a bug of ours that was caught at a boundary
};

/// The code's name as it stands in JSON errors, e.g. "invalid_argument".
std::string_view StatusCodeName(StatusCode code);

/// Success, or a code with a message saying what, where and how to mend it. Value type, thread-compatible.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  /// The same error with "context: " before its message; success stays success.
  Status WithContext(std::string_view context) const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status OkStatus() { return {}; }

template <typename... Args>
Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return {StatusCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...)};
}
template <typename... Args>
Status InvalidData(fmt::format_string<Args...> format, Args&&... args) {
  return {StatusCode::kInvalidData, fmt::format(format, std::forward<Args>(args)...)};
}
template <typename... Args>
Status NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return {StatusCode::kNotFound, fmt::format(format, std::forward<Args>(args)...)};
}
template <typename... Args>
Status Unsupported(fmt::format_string<Args...> format, Args&&... args) {
  return {StatusCode::kUnsupported, fmt::format(format, std::forward<Args>(args)...)};
}
template <typename... Args>
Status ResourceExhausted(fmt::format_string<Args...> format, Args&&... args) {
  return {StatusCode::kResourceExhausted, fmt::format(format, std::forward<Args>(args)...)};
}
template <typename... Args>
Status IoError(fmt::format_string<Args...> format, Args&&... args) {
  return {StatusCode::kIoError, fmt::format(format, std::forward<Args>(args)...)};
}
template <typename... Args>
Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return {StatusCode::kInternal, fmt::format(format, std::forward<Args>(args)...)};
}

namespace internal {
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression, std::string_view detail);
}  // namespace internal

/// For kvasir's own bugs only, never for input: prints the place and aborts.
#define KVASIR_CHECK(condition)                                                            \
  do {                                                                                     \
    if (!(condition)) ::kvasir::internal::CheckFailed(__FILE__, __LINE__, #condition, {}); \
  } while (false)

/// A value or the error that kept it from being made.
/// REQUIRES: ok() before value(), *, ->.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    KVASIR_CHECK(!status_.ok());
  }
  template <typename U>
    requires(std::is_convertible_v<U &&, T> && !std::is_same_v<std::remove_cvref_t<U>, Result> &&
             !std::is_same_v<std::remove_cvref_t<U>, Status> && !std::is_same_v<std::remove_cvref_t<U>, T>)
  Result(U&& value) : value_(std::forward<U>(value)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & {
    KVASIR_CHECK(ok());
    return *value_;
  }
  const T& value() const& {
    KVASIR_CHECK(ok());
    return *value_;
  }
  T&& value() && {
    KVASIR_CHECK(ok());
    return *std::move(value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

#define KVASIR_CONCAT_INNER(a, b) a##b
#define KVASIR_CONCAT(a, b) KVASIR_CONCAT_INNER(a, b)

/// Returns the error of a Status expression from the enclosing function.
#define RETURN_IF_ERROR(expression)                  \
  do {                                               \
    ::kvasir::Status kvasir_status_ = (expression);  \
    if (!kvasir_status_.ok()) return kvasir_status_; \
  } while (false)

/// Declares or assigns `target` from a Result expression, or returns its error.
#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_IMPL(KVASIR_CONCAT(kvasir_result_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_IMPL(result, target, expression) \
  auto result = (expression);                             \
  if (!result.ok()) return result.status();               \
  target = std::move(result).value()

}  // namespace kvasir
