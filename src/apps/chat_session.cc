#include "apps/chat_session.h"

#include <boost/json/serialize.hpp>

#include "apps/report.h"
#include "apps/terminal.h"
#include "base/utf8.h"
#include "io/json.h"

namespace kvasir::apps {
namespace {

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

}  // namespace

struct ChatSession::Command {
  std::string name;
  std::string argument;
  std::string help;
  Status (ChatSession::*run)(std::string_view);
};

const std::vector<ChatSession::Command>& ChatSession::Commands() {
  static const std::vector<Command> commands = {
      {"/help", "", "Show this list.", &ChatSession::Help},
      {"/set", "[NAME VALUE]", "Change a setting, such as /set temp 0.7; alone: show all settings.", &ChatSession::Set},
      {"/stats", "", "Figures of the last answer.", &ChatSession::Stats},
      {"/save", "FILE", "Write the conversation to a JSON file.", &ChatSession::Save},
      {"/load", "FILE", "Go on with a conversation from such a file.", &ChatSession::Load},
      {"/clear", "", "Begin a new conversation.", &ChatSession::Clear},
      {"/regen", "", "Answer the last message again, with other random numbers.", &ChatSession::Regenerate},
      {"/exit", "", "Leave (so do /quit and Ctrl-D).", &ChatSession::Exit},
      {"/quit", "", "", &ChatSession::Exit},
  };
  return commands;
}

ChatSession::ChatSession(Engine& engine, ChatFormat format, SamplingFlags& sampling, FlagTable& settings,
                         const Options& options)
    : engine_(engine), format_(std::move(format)), sampling_(sampling), settings_(settings), options_(options) {
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
}

Status ChatSession::Handle(const std::string& line) {
  const std::string_view text = Trim(line);
  if (text.empty()) return OkStatus();
  if (!IsValidUtf8(text)) return InvalidArgument("the message is not valid UTF-8");
  if (!text.starts_with('/')) return Say(std::string(text));
  const size_t space = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, space);
  std::vector<std::string> names;
  for (const Command& command : Commands()) {
    if (command.name == word) return (this->*command.run)(Trim(text.substr(space)));
    names.push_back(command.name);
  }
  const std::string* nearest = Nearest(word, names);
  return InvalidArgument("unknown command {}{} (see /help)", word,
                         nearest ? fmt::format("; did you mean {}?", *nearest) : "");
}

Status ChatSession::Say(std::string content) {
  messages_.push_back({"user", std::move(content)});
  const Result<bool> answered = Answer();
  // A message that was not answered is not part of the conversation.
  if (!answered.ok() || !*answered) messages_.pop_back();
  return answered.status();
}

Result<bool> ChatSession::Answer() {
  GenerationRequest request;
  RETURN_IF_ERROR(sampling_.Apply(engine_.defaults(), &request));
  ASSIGN_OR_RETURN(request.prompt, format_.Encode(MessageList(messages_), {.parse_special = options_.parse_special}));
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (prompt_tokens >= engine_.context()) {
    return ResourceExhausted(
        "the conversation has {} tokens with this message, the context holds {}: /clear begins anew, -c gives more",
        prompt_tokens, engine_.context());
  }
  // A chat answer ends by itself; only a wish or the context bounds it.
  SamplingFlags lengths = sampling_;
  if (!lengths.max_new_tokens && !engine_.defaults().max_new_tokens) lengths.max_new_tokens = -1;
  ASSIGN_OR_RETURN(request.max_new_tokens, lengths.MaxNewTokens(engine_.defaults(), prompt_tokens, engine_.context()));
  request.sampling.seed += turn_;
  request.stop.insert(request.stop.end(), format_.stop().begin(), format_.stop().end());
  request.keep = true;
  request.skip_special = !options_.show_special;

  request.interrupted = Interrupted;

  Status written;
  auto result = engine_.Generate(request, [&](const TextEvent& event) {
    if (!event.text.empty()) written = WriteText(event.text);
    return written.ok() && !Interrupted();
  });
  RETURN_IF_ERROR(written);
  if (!result.ok()) return result.status();
  RETURN_IF_ERROR(WriteStdout("\n"));
  if (result->samples.front().token_ids.empty()) {
    ClearInterrupt();
    Note("stopped before the answer began; the conversation is as it was before");
    return false;
  }
  ++turn_;
  last_ = *std::move(result);
  const GeneratedSample& sample = last_->samples.front();
  messages_.push_back({"assistant", sample.text});
  if (Interrupted()) Note("stopped");
  ClearInterrupt();
  if (sample.finish == FinishReason::kLength) Note("the answer ends here because of its length");
  if (options_.figures) WriteStderr(Figures(engine_, *last_));
  return true;
}

Status ChatSession::Help(std::string_view) {
  std::string text;
  for (const Command& command : Commands()) {
    if (command.help.empty()) continue;
    text += fmt::format("  {:<20} {}\n", command.name + " " + command.argument, command.help);
  }
  text += "  Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.\n";
  return WriteStdout(text);
}

Status ChatSession::Set(std::string_view argument) {
  if (argument.empty()) {
    std::string text;
    for (const Flag& flag : settings_.flags()) {
      const std::string now = flag.show();
      text += fmt::format("  {:<22} {}\n", flag.long_name().substr(2), now.empty() ? flag.default_text : now);
    }
    return WriteText(text);
  }
  const size_t space = std::min(argument.find(' '), argument.size());
  const std::string_view name = argument.substr(0, space);
  const std::string_view value = Trim(argument.substr(space));
  const Flag* flag = settings_.Find(name);
  if (!flag) return InvalidArgument("there is no setting \"{}\"{}", name, settings_.Suggest(name));
  if (value.empty()) return InvalidArgument("/set {} needs a value", name);
  return flag->set(value).WithContext(name);
}

Status ChatSession::Stats(std::string_view) {
  if (!last_) return InvalidArgument("there is no answer yet");
  int64_t used = last_->timings.prefill_tokens + last_->timings.cached_tokens;
  used += static_cast<int64_t>(last_->samples.front().token_ids.size());
  const MemoryPlan& plan = engine_.memory_plan();
  const std::string kept =
      plan.cached_tokens < plan.context
          ? fmt::format("{} tokens so far, of which the cache keeps up to {}", used, plan.cached_tokens)
          : fmt::format("{} of {} tokens of context used", used, plan.context);
  return WriteStdout(fmt::format("{}\n{} messages, {}\n", Figures(engine_, *last_), messages_.size(), kept));
}

Status ChatSession::Save(std::string_view file) {
  if (file.empty()) return InvalidArgument("/save needs a file name");
  RETURN_IF_ERROR(SaveConversation(std::string(file), messages_));
  return WriteText(fmt::format("{} messages written to {}\n", messages_.size(), file));
}

Status ChatSession::Load(std::string_view file) {
  if (file.empty()) return InvalidArgument("/load needs a file name");
  ASSIGN_OR_RETURN(messages_, LoadConversation(std::string(file)));
  last_.reset();
  return WriteText(fmt::format("{} messages read from {}\n", messages_.size(), file));
}

Status ChatSession::SaveSession(const std::filesystem::path& file) {
  boost::json::object note = ConversationJson(messages_);
  note["turn"] = turn_;
  return engine_.SaveSession(file, boost::json::serialize(note));
}

Status ChatSession::LoadSession(const std::filesystem::path& file) {
  ASSIGN_OR_RETURN(const std::string note, engine_.LoadSession(file));
  if (note.empty()) return InvalidArgument("{}: holds no conversation; generate --session wrote it", file.string());
  ASSIGN_OR_RETURN(const boost::json::value document, ParseJson(note, file.string()));
  ASSIGN_OR_RETURN(messages_, ParseConversation(document, file.string()));
  const boost::json::value* turn = document.as_object().if_contains("turn");
  turn_ = turn && turn->is_int64() && turn->as_int64() > 0 ? static_cast<uint64_t>(turn->as_int64()) : 0;
  return OkStatus();
}

Status ChatSession::Clear(std::string_view) {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  engine_.DropKept();
  last_.reset();
  return OkStatus();
}

Status ChatSession::Regenerate(std::string_view) {
  if (messages_.empty() || messages_.back().role != "assistant")
    return InvalidArgument("there is no answer to replace");
  const Message answer = std::move(messages_.back());
  messages_.pop_back();
  const Result<bool> answered = Answer();
  if (!answered.ok() || !*answered) messages_.push_back(answer);
  return answered.status();
}

Status ChatSession::Exit(std::string_view) {
  finished_ = true;
  return OkStatus();
}

}  // namespace kvasir::apps
