// The JSON in which models write calls of tools, read byte by byte.
#pragma once

#include <memory>
#include <string>

namespace kvasir::server {

/// Reads one call, {"name": …, "arguments": …}, or a list of them; "parameters" is another name of "arguments". As soon
/// as a call's name is known and its arguments have begun, it is told of, and what comes of them is passed on as the
/// model writes it, since OpenAI's interface has arguments as JSON text. Arguments that are no object or list (a
/// string with JSON in it, null) are passed on whole. Not thread-safe.
class CallJson {
 public:
  /// What a byte has brought, in this order.
  struct Step {
    bool begins = false;    // a call, whose name() is known now
    std::string arguments;  // what comes to those of this call
    bool ends = false;      // its arguments are complete; what follows of it changes nothing
    bool closed = false;    // the call's own object has ended
    bool done = false;      // the whole text has; nothing more may be fed
    bool broken = false;    // with this byte the text is no JSON, or no call; nothing else holds then
  };

  CallJson();
  ~CallJson();

  Step Feed(char byte);
  const std::string& name() const;

 private:
  class Handler;
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace kvasir::server
