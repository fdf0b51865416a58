// CLI11's side of the flag table. The only file that includes CLI11: it is slow to compile.
#include <CLI/CLI.hpp>

#include <cstdlib>

#include "apps/flags.h"

namespace kvasir::apps {
namespace {

Status SetAll(const Flag& flag, std::string_view source, const std::vector<std::string>& values) {
  for (const std::string& value : values) RETURN_IF_ERROR(flag.set(value).WithContext(source));
  return OkStatus();
}

std::string CommaSeparated(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ",") + name;
  return all;
}

CLI::Option* AddOption(CLI::App& app, const Flag& flag) {
  std::string names = CommaSeparated(flag.names);
  if (flag.placeholder.empty()) {
    if (!flag.negative.empty()) names += ",!" + flag.negative;
    return app.add_flag(names)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  // Values are kept as they were typed; the table converts and checks them.
  CLI::Option* option = app.add_option(names, CLI::callback_t([](const CLI::results_t&) { return true; }));
  return option->type_name("")->expected(1)->allow_extra_args(false)->multi_option_policy(
      CLI::MultiOptionPolicy::TakeAll);
}

// Extras are flags that nobody knows and arguments without a flag.
Status TakeExtras(const FlagTable& table, const std::vector<std::string>& extras) {
  bool taken = false;
  for (const std::string& extra : extras) {
    if (extra.size() > 1 && extra[0] == '-' && extra != "--") {
      const std::string name = extra.substr(0, extra.find('='));
      return InvalidArgument("unknown flag {}{}", name, table.Suggest(name));
    }
    const Flag* flag = table.positional().empty() ? nullptr : table.Find(table.positional());
    if (!flag) return InvalidArgument("unexpected argument \"{}\": every value follows its flag", extra);
    if (taken && !flag->repeatable) return InvalidArgument("unexpected argument \"{}\": one is enough", extra);
    RETURN_IF_ERROR(flag->set(extra).WithContext(flag->long_name()));
    taken = true;
  }
  return OkStatus();
}

}  // namespace

Status ParseFlags(FlagTable& table, std::span<const std::string> args) {
  try {
    CLI::App app;
    app.set_help_flag("");
    app.allow_extras();
    std::vector<CLI::Option*> options;
    for (const Flag& flag : table.flags()) options.push_back(AddOption(app, flag));
    // CLI11 takes the arguments in reverse.
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));

    for (size_t i = 0; i < options.size(); ++i) {
      const Flag& flag = table.flags()[i];
      if (flag.long_name() == "--help" && options[i]->count() > 0) return flag.set("true");
    }
    RETURN_IF_ERROR(TakeExtras(table, app.remaining()));
    for (size_t i = 0; i < options.size(); ++i) {
      const Flag& flag = table.flags()[i];
      if (options[i]->count() > 0) {
        RETURN_IF_ERROR(SetAll(flag, flag.long_name(), options[i]->results()));
        continue;
      }
      const bool positional_given = flag.long_name() == table.positional() && !app.remaining().empty();
      if (positional_given) continue;
      for (const std::string& variable : flag.environment_names()) {
        const char* value = std::getenv(variable.c_str());
        if (!value) continue;
        RETURN_IF_ERROR(flag.set(value).WithContext(variable));
        break;
      }
    }
    return OkStatus();
  } catch (const CLI::ArgumentMismatch& error) {
    // CLI11's own words are "--name: 1 required  missing".
    const std::string text = error.what();
    return InvalidArgument("flag {} needs a value", text.substr(0, text.find(':')));
  } catch (const CLI::Error& error) {
    return InvalidArgument("{}", error.what());
  }
}

}  // namespace kvasir::apps
