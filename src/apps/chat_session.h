// The state of a conversation on the terminal, and its commands.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/conversation.h"
#include "apps/flags.h"
#include "apps/sampling_flags.h"
#include "base/status.h"
#include "engine/engine.h"

namespace kvasir::apps {

/// Answers messages and carries out /commands. Errors of one turn are for the caller to show; the session goes on.
class ChatSession {
 public:
  struct Options {
    std::string system;  // system message; empty: none
    bool parse_special = false;
    bool show_special = false;
    bool figures = false;  // after every answer
  };
  /// `settings` names the flags that /set may change; it, `sampling` and `options` outlive the session.
  ChatSession(Engine& engine, ChatFormat format, SamplingFlags& sampling, FlagTable& settings, const Options& options);

  /// One line of input: a command or a message. A Cancelled or IoError status ends the program.
  Status Handle(const std::string& line);
  bool finished() const { return finished_; }

  /// Writes the conversation and what the engine kept of it (Engine::SaveSession).
  Status SaveSession(const std::filesystem::path& file);
  /// Goes on with a conversation that SaveSession wrote; on errors this one is as it was, but for the engine's cache.
  Status LoadSession(const std::filesystem::path& file);

 private:
  struct Command;
  static const std::vector<Command>& Commands();

  Status Say(std::string content);
  /// False: stopped before the answer began.
  Result<bool> Answer();
  Status Help(std::string_view);
  Status Set(std::string_view argument);
  Status Stats(std::string_view);
  Status Save(std::string_view file);
  Status Load(std::string_view file);
  Status Clear(std::string_view);
  Status Regenerate(std::string_view);
  Status Exit(std::string_view);

  Engine& engine_;
  ChatFormat format_;
  SamplingFlags& sampling_;
  FlagTable& settings_;
  const Options& options_;
  std::vector<Message> messages_;
  std::optional<GenerationOutput> last_;
  uint64_t turn_ = 0;  // answers so far: each draws from its own stream of the seed
  bool finished_ = false;
};

}  // namespace kvasir::apps
