// The kvasir program: finds the verb, sets its flags, runs it, and turns every error into a message and an exit code.
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "apps/terminal.h"
#include "apps/verb.h"
#include "base/cpu.h"
#include "kernels/exec.h"

extern char** environ;

namespace kvasir::apps {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;  // as shells report Ctrl-C

using Factory = std::unique_ptr<Verb> (*)();
constexpr Factory kVerbs[] = {
    MakeGenerateVerb,   MakeChatVerb,   MakeServeVerb,      MakeInspectVerb, MakeAnalyzeVerb,
    MakeTokenizeVerb,   MakeLogitsVerb, MakePerplexityVerb, MakeBenchVerb,   MakeBenchTechniquesVerb,
    MakeBenchServeVerb, MakePackVerb,   MakeQuantizeVerb};

/// A verb with its table, --help included.
struct Command {
  std::unique_ptr<Verb> verb;
  FlagTable flags;
  bool help = false;

  explicit Command(Factory make) : verb(make()) {
    verb->AddFlags(flags);
    flags.Group("Help");
    flags.Switch("-h,--help", &help, "Show this text.");
  }
};

std::string Overview() {
  std::string out =
      "kvasir - runs decoder language models on this machine\n\n"
      "usage: kvasir VERB [flags]\n"
      "       kvasir VERB --help\n\nverbs:\n";
  for (Factory make : kVerbs) {
    const auto verb = make();
    out += fmt::format("  {:<18}{}\n", verb->name(), verb->summary());
  }
  out +=
      "\nflags:\n"
      "  --version   Show the version and the kernel sets of this processor.\n"
      "  -h, --help  Show this text.\n"
      "\nEvery flag can also be set by its environment variable (KVASIR_ARG_TEMP=0.7 is --temp 0.7); the command line "
      "wins.\nKVASIR_LOG=debug|info|warning|error sets what is logged, KVASIR_ISA=NAME forces a kernel set.\n"
      "Exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted.\n";
  return out;
}

std::string VersionText() {
  std::string sets;
  for (const KernelSet* set : AvailableKernelSets()) {
    sets += (sets.empty() ? "" : ", ") + std::string(KernelSetName(*set));
  }
  const auto selected = SelectKernelSet();
  const std::string in_use = selected.ok() ? std::string(KernelSetName(**selected)) : selected.status().message();
  return fmt::format("kvasir {}\nprocessor: {}\nkernels: {} (available: {})\n", KVASIR_VERSION, GetCpuFeatures().name,
                     in_use, sets);
}

// Whether errors are wanted as JSON; asked before the flags could be read.
bool WantsJson(const std::vector<std::string>& args) {
  const char* variable = std::getenv("KVASIR_ARG_JSON");
  const std::string_view value = variable ? variable : "";
  bool wants = !value.empty() && value != "0" && value != "false" && value != "no" && value != "off";
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--json") wants = true;
    if ((args[i] == "-o" || args[i] == "--output") && i + 1 < args.size() && args[i + 1] == "json") wants = true;
  }
  return wants;
}

// A misspelt variable would otherwise change nothing without a word.
void WarnOfUnknownVariables() {
  std::vector<std::string> known;
  for (Factory make : kVerbs) {
    const Command command(make);
    for (const Flag& flag : command.flags.flags()) {
      for (std::string& name : flag.environment_names()) known.push_back(std::move(name));
    }
  }
  for (char** variable = environ; *variable; ++variable) {
    const std::string_view text = *variable;
    if (!text.starts_with("KVASIR_ARG_")) continue;
    const std::string name(text.substr(0, text.find('=')));
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string* nearest = Nearest(name, known);
    Note(fmt::format("the environment variable {} belongs to no flag{}", name,
                     nearest ? fmt::format("; did you mean {}?", *nearest) : ""));
  }
}

int Fail(const Status& status, bool json, int exit_code) {
  if (!status.message().empty()) PrintError(status, json);
  return exit_code;
}

int RunCommand(Command& command, const std::vector<std::string>& args, bool json) {
  const Status parsed = ParseFlags(command.flags, args);
  if (!parsed.ok()) {
    const Status status = InvalidArgument("{} (see kvasir {} --help)", parsed.message(), command.verb->name());
    return Fail(status, json, kExitUsage);
  }
  if (command.help) {
    const Status written =
        WriteStdout(fmt::format("kvasir {} - {}\n\n{}\n{}", command.verb->name(), command.verb->summary(),
                                command.verb->description(), command.flags.Help()));
    return written.ok() ? kExitOk : Fail(written, json, kExitError);
  }
  WarnOfUnknownVariables();
  const Status status = command.verb->Run();
  if (status.ok()) return kExitOk;
  return Fail(status, json, Interrupted() ? kExitInterrupted : kExitError);
}

/// How many words at the front of `args` are the verb's name; 0: another verb is meant.
size_t WordsOfName(std::string_view name, const std::vector<std::string>& args) {
  const size_t space = name.find(' ');
  if (name.substr(0, space) != args[0]) return 0;
  if (space == name.npos) return 1;
  return args.size() > 1 && name.substr(space + 1) == args[1] ? 2 : 0;
}

int Main(const std::vector<std::string>& args, bool json) {
  if (args.empty()) {
    WriteStderr(Overview());
    return kExitUsage;
  }
  const std::string& word = args.front();
  if (word == "--help" || word == "-h" || word == "help" || word == "--version") {
    const Status written = WriteStdout(word == "--version" ? VersionText() : Overview());
    return written.ok() ? kExitOk : Fail(written, json, kExitError);
  }
  std::vector<std::string> names;
  Factory chosen = nullptr;
  size_t words = 0;
  for (Factory make : kVerbs) {
    const auto verb = make();
    names.emplace_back(verb->name());
    const size_t matching = WordsOfName(verb->name(), args);
    if (matching <= words) continue;
    chosen = make;
    words = matching;
  }
  if (chosen != nullptr) {
    Command command(chosen);
    return RunCommand(command, {args.begin() + static_cast<ptrdiff_t>(words), args.end()}, json);
  }
  const std::string* nearest = Nearest(word, names);
  return Fail(InvalidArgument("unknown verb \"{}\"{} (see kvasir --help)", word,
                              nearest ? fmt::format("; did you mean {}?", *nearest) : ""),
              json, kExitUsage);
}

}  // namespace
}  // namespace kvasir::apps

int main(int argc, char** argv) {
  using namespace kvasir;
  bool json = false;
  try {
    apps::PrepareStandardStreams();
    const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
    json = apps::WantsJson(args);
    return apps::Main(args, json);
  } catch (const std::bad_alloc&) {
    apps::PrintError(ResourceExhausted("out of memory"), json);
  } catch (const std::exception& error) {
    apps::PrintError(Internal("{}", error.what()), json);
  }
  return apps::kExitError;
}
