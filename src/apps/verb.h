// What a verb of the command line is.
#pragma once

#include <memory>
#include <string_view>

#include "apps/flags.h"
#include "base/status.h"

namespace kvasir::apps {

/// One verb: its flags and its work. Used once: AddFlags, then the flags are set, then Run.
class Verb {
 public:
  virtual ~Verb() = default;
  /// One word, or two for a part of another verb: "bench techniques".
  virtual std::string_view name() const = 0;
  /// One line for the list of verbs.
  virtual std::string_view summary() const = 0;
  /// What --help says before the flags: usage and examples.
  virtual std::string_view description() const = 0;
  virtual void AddFlags(FlagTable& flags) = 0;
  /// Does the work and writes to standard output. Cancelled without a message: end quietly, but not with success.
  virtual Status Run() = 0;
};

std::unique_ptr<Verb> MakeGenerateVerb();
std::unique_ptr<Verb> MakeChatVerb();
std::unique_ptr<Verb> MakeServeVerb();
std::unique_ptr<Verb> MakeInspectVerb();
std::unique_ptr<Verb> MakeAnalyzeVerb();
std::unique_ptr<Verb> MakeTokenizeVerb();
std::unique_ptr<Verb> MakeLogitsVerb();
std::unique_ptr<Verb> MakePerplexityVerb();
std::unique_ptr<Verb> MakeBenchVerb();
std::unique_ptr<Verb> MakeBenchTechniquesVerb();
std::unique_ptr<Verb> MakeBenchServeVerb();
std::unique_ptr<Verb> MakePackVerb();
std::unique_ptr<Verb> MakeQuantizeVerb();

}  // namespace kvasir::apps
