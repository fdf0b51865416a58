// kvasir chat: a conversation on the terminal.
#include "apps/chat_session.h"
#include "apps/model_flags.h"
#include "apps/terminal.h"
#include "apps/verb.h"

namespace kvasir::apps {
namespace {

class ChatVerb final : public Verb {
 public:
  std::string_view name() const override { return "chat"; }
  std::string_view summary() const override { return "Converse with a model, its KV cache kept between turns."; }
  std::string_view description() const override {
    return "usage: kvasir chat -m MODEL [--system TEXT] [flags]\n\n"
           "Each line is a message; /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Conversation");
    flags.Text("--system,--system-prompt", "TEXT", &options_.system, "System message before the conversation.");
    flags.Text("--template,--chat-template", "FILE|chatml", &template_, "Chat template: a Jinja file, or ChatML.",
               "the model's");
    flags.Text("--load", "FILE", &load_, "Go on with a conversation written by /save.");
    flags.Text("--session", "FILE", &session_,
               "Go on with the conversation in FILE, its KV cache included, if there is one, and write it there at the "
               "end.");
    flags.Switch("--parse-special", &options_.parse_special,
                 "Read special tokens written in messages as such, as Hugging Face does.");
    flags.Switch("--special", &options_.show_special, "Show special tokens in answers.");
    flags.Switch("--figures", &options_.figures, "Show figures after every answer.");
    flags.Switch("--json", &json_, "Errors as JSON objects.");
    model_.AddAll(flags);
    sampling_.AddSampling(flags);
    model_.AddVerbose(flags);
  }

  Status Run() override {
    if (!session_.empty() && !load_.empty()) return InvalidArgument("--session and --load are two conversations");
    if (model_.cache.mode == CacheMode::kNone) Note("--cache none: every turn computes the whole conversation again");
    ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, LoadEngine(model_, model_.Options(), json_));
    ASSIGN_OR_RETURN(ChatFormat format, ChatFormat::Make(*engine, template_));
    FlagTable settings;
    sampling_.AddSampling(settings);
    settings.Switch("--figures", &options_.figures, "Show figures after every answer.");
    ChatSession session(*engine, std::move(format), sampling_, settings, options_);
    if (!load_.empty()) RETURN_IF_ERROR(session.Handle("/load " + load_));
    if (!session_.empty()) {
      RETURN_IF_ERROR(SessionExists(session_) ? session.LoadSession(session_) : engine->CheckSessions());
    }
    CatchInterrupts();
    Status status = Converse(session);
    if (!session_.empty()) RETURN_IF_ERROR(session.SaveSession(session_));
    return status;
  }

 private:
  // Ends the program: nobody hears the answers any more.
  static bool IsFatal(const Status& status) {
    return status.code() == StatusCode::kCancelled || status.message().starts_with("cannot write to standard output");
  }

  Status Converse(ChatSession& session) const {
    const bool prompts = StdinIsTerminal() && StdoutIsTerminal();
    if (prompts) RETURN_IF_ERROR(WriteStdout("Type a message, or /help.\n"));
    std::string message;
    bool failed = false;
    while (!session.finished()) {
      if (prompts) RETURN_IF_ERROR(WriteStdout(message.empty() ? "> " : ". "));
      ClearInterrupt();
      ASSIGN_OR_RETURN(const std::optional<std::string> line, ReadLine());
      if (!line) {
        if (prompts) RETURN_IF_ERROR(WriteStdout("\n"));
        // What stood before a last backslash is a message too.
        if (message.empty()) break;
      } else if (Interrupted()) {
        message.clear();
        RETURN_IF_ERROR(WriteStdout("\n"));
        Note("/exit or Ctrl-D leaves");
        continue;
      } else {
        message += *line;
        if (message.ends_with('\\')) {
          message.back() = '\n';
          continue;
        }
      }
      const Status status = session.Handle(message);
      message.clear();
      if (!status.ok() && IsFatal(status)) return status;
      if (!status.ok()) PrintError(status, json_);
      failed |= !status.ok();
      if (!line) break;
    }
    // A script should learn of a turn that failed; a person has seen it.
    return failed && !prompts ? Status(StatusCode::kCancelled, "") : OkStatus();
  }

  ModelFlags model_;
  SamplingFlags sampling_;
  ChatSession::Options options_;
  std::string template_;
  std::string load_;
  std::string session_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeChatVerb() { return std::make_unique<ChatVerb>(); }

}  // namespace kvasir::apps
