// kvasir generate: a prompt in, text out.
#include <boost/json/array.hpp>

#include "apps/conversation.h"
#include "apps/model_flags.h"
#include "apps/prompt_input.h"
#include "apps/report.h"
#include "apps/sampling_flags.h"
#include "apps/terminal.h"
#include "apps/verb.h"
#include "decode/json_constraint.h"
#include "decode/json_schema.h"

namespace kvasir::apps {
namespace {

class GenerateVerb final : public Verb {
 public:
  std::string_view name() const override { return "generate"; }
  std::string_view summary() const override { return "Write text after a prompt."; }
  std::string_view description() const override {
    return "usage: kvasir generate [-m MODEL] [-p TEXT | -f FILE] [flags]\n\n"
           "The text streams to standard output, a line of figures follows on standard error.\n"
           "Without -m the demonstration model writes; without -p and -f the prompt is standard input.\n\n"
           "  kvasir generate -p \"Once upon a time\" -n 200 --temp 0.8\n"
           "  kvasir generate -m ./my-model --chat -p \"What is a KV cache?\" --json\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Prompt");
    prompt_.Add(flags);
    flags.Switch("--chat", &chat_, "Put the prompt into the model's chat template as a user's message.", "--raw");
    flags.Text("--system", "TEXT", &system_, "With --chat: the system message.");
    flags.Text("--template,--chat-template", "FILE|chatml", &template_, "With --chat: the template.", "the model's");
    flags.Switch("--parse-special", &parse_special_, "Read special tokens written in the prompt as such.",
                 "--no-parse-special", "on; off with --chat");
    flags.Text(
        "--session,--prompt-cache", "FILE", &session_,
        "Take from FILE, if there is one, the KV cache of what its text and the prompt begin with alike, and write "
        "that of prompt and answer there.");
    model_.AddAll(flags);
    sampling_.AddSampling(flags);
    flags.Group("Form of the answer");
    flags.Text("--json-schema", "FILE|TEXT", &json_schema_,
               "The answer is JSON that satisfies this JSON Schema; a text that begins with { is the schema itself.");
    flags.Switch("--json-object", &json_object_, "The answer is a JSON object.");
    beams_.Add(flags);
    flags.Group("Output");
    flags.Switch("--stream", &stream_, "Show text as it is written.", "--no-stream");
    flags.Switch("--echo", &echo_, "Show the prompt before its continuation.");
    flags.Switch("--special", &special_, "Show special tokens in the text.");
    flags.Switch("--json", &json_, "Print one JSON object with text, ids, timings and memory, when done.");
    model_.AddVerbose(flags);
  }

  Status Run() override {
    if (!chat_ && (!system_.empty() || !template_.empty())) {
      return InvalidArgument("--system and --template are for --chat; a raw prompt holds everything itself");
    }
    ASSIGN_OR_RETURN(const std::shared_ptr<const JsonGrammar> grammar, Grammar());
    ASSIGN_OR_RETURN(const std::string text, prompt_.Read(true));
    EngineOptions options = model_.Options();
    options.max_sequences = beams_.MaxSequences();
    ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, LoadEngine(model_, options, json_));
    if (!engine->tokenizer()) {
      return NotFound("this model has no tokenizer (tokenizer.json, tokenizer.model …), so it cannot read a prompt");
    }
    GenerationRequest request;
    RETURN_IF_ERROR(sampling_.Apply(engine->defaults(), &request));
    ASSIGN_OR_RETURN(request.prompt, Encode(*engine, text, &request.stop));
    const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
    ASSIGN_OR_RETURN(request.max_new_tokens,
                     sampling_.MaxNewTokens(engine->defaults(), prompt_tokens, engine->context()));
    RETURN_IF_ERROR(beams_.Apply(engine->defaults(), &request));
    request.skip_special = !special_;
    if (grammar) {
      ASSIGN_OR_RETURN(const std::shared_ptr<const TokenTrie> tokens, engine->token_trie());
      request.constraint = MakeJsonConstraint(grammar, tokens);
    }
    if (!session_.empty()) RETURN_IF_ERROR(BeginSession(*engine, request));
    // Only from here on: while the prompt is typed and the model loaded, Ctrl-C ends the program as always.
    CatchInterrupts();
    request.interrupted = Interrupted;
    return Generate(*engine, text, request);
  }

 private:
  /// What the answer has to be; null: anything.
  Result<std::shared_ptr<const JsonGrammar>> Grammar() const {
    if (!json_schema_) return json_object_ ? JsonObjectGrammar() : nullptr;
    if (json_object_) return InvalidArgument("--json-schema and --json-object: choose one");
    if (json_schema_->starts_with('{')) return CompileJsonSchemaText(*json_schema_, "--json-schema");
    ASSIGN_OR_RETURN(const std::string schema, ReadFile(*json_schema_, kMostJsonSchemaBytes));
    return CompileJsonSchemaText(schema, *json_schema_);
  }

  Status BeginSession(Engine& engine, GenerationRequest& request) const {
    if (request.n != 1 || request.beams.num_beams > 1) {
      return InvalidArgument("--session keeps one sequence; there are several samples or beams");
    }
    request.keep = true;
    if (!SessionExists(session_)) return engine.CheckSessions();
    ASSIGN_OR_RETURN(const std::string note, engine.LoadSession(session_));
    if (note.empty()) return OkStatus();
    return InvalidArgument("{}: holds a conversation; chat --session goes on with it", session_);
  }

  Result<std::vector<TokenId>> Encode(Engine& engine, const std::string& text, std::vector<std::string>* stop) const {
    if (!chat_) return engine.tokenizer()->Encode(text, {.parse_special = parse_special_.value_or(true)});
    ASSIGN_OR_RETURN(const ChatFormat format, ChatFormat::Make(engine, template_));
    stop->insert(stop->end(), format.stop().begin(), format.stop().end());
    std::vector<Message> messages;
    if (!system_.empty()) messages.push_back({"system", system_});
    messages.push_back({"user", text});
    return format.Encode(MessageList(messages), {.parse_special = parse_special_.value_or(false)});
  }

  Status Generate(Engine& engine, const std::string& text, const GenerationRequest& request) const {
    const bool streaming = stream_ && !json_ && request.n == 1 && request.beams.num_beams == 1;
    if (echo_ && !json_ && streaming) RETURN_IF_ERROR(WriteText(text));
    Status written;
    auto on_text = [&](const TextEvent& event) {
      if (streaming && !event.text.empty()) written = WriteText(event.text);
      return written.ok() && !Interrupted();
    };
    auto result = engine.Generate(request, on_text);
    RETURN_IF_ERROR(written);
    if (!result.ok()) return result.status();
    const GenerationOutput& output = *result;
    if (json_) {
      boost::json::object object = ToJson(request, output);
      object["memory_plan"] = PlanJson(engine.memory_plan());
      RETURN_IF_ERROR(WriteStdout(JsonLine(object)));
    } else {
      RETURN_IF_ERROR(streaming ? WriteStdout("\n") : WriteSamples(text, output));
      WriteStderr(Figures(engine, output));
    }
    // A prompt that was stopped before its answer began does not replace what an earlier run has saved.
    if (!session_.empty() && !output.samples.front().token_ids.empty()) {
      RETURN_IF_ERROR(engine.SaveSession(session_));
    }
    return Interrupted() ? Status(StatusCode::kCancelled, "") : OkStatus();
  }

  Status WriteSamples(const std::string& text, const GenerationOutput& output) const {
    const bool many = output.samples.size() > 1;
    for (size_t i = 0; i < output.samples.size(); ++i) {
      if (many)
        RETURN_IF_ERROR(WriteStdout(fmt::format("{}--- {} of {} ---\n", i ? "\n" : "", i + 1, output.samples.size())));
      if (echo_) RETURN_IF_ERROR(WriteText(text));
      RETURN_IF_ERROR(WriteText(output.samples[i].text));
      RETURN_IF_ERROR(WriteStdout("\n"));
    }
    return OkStatus();
  }

  static boost::json::object SampleJson(const GeneratedSample& sample, bool beam) {
    boost::json::object object{{"text", sample.text},
                               {"token_ids", boost::json::array(sample.token_ids.begin(), sample.token_ids.end())},
                               {"finish_reason", FinishReasonName(sample.finish)}};
    if (beam) object["score"] = sample.score;
    return object;
  }

  // The first sample at the top, as for a single one; all of them under "samples" when there are several.
  static boost::json::object ToJson(const GenerationRequest& request, const GenerationOutput& output) {
    const bool beam = request.beams.num_beams > 1;
    boost::json::object object;
    if (!output.samples.empty()) object = SampleJson(output.samples.front(), beam);
    object["prompt_token_ids"] = boost::json::array(request.prompt.begin(), request.prompt.end());
    if (output.samples.size() > 1) {
      boost::json::array samples;
      for (const GeneratedSample& sample : output.samples) samples.push_back(SampleJson(sample, beam));
      object["samples"] = std::move(samples);
    }
    object["timings"] = TimingsJson(output.timings);
    object["memory"] = MemoryJson(output.memory);
    return object;
  }

  PromptInput prompt_;
  ModelFlags model_;
  SamplingFlags sampling_;
  BeamFlags beams_;
  std::string system_;
  std::string template_;
  std::string session_;
  std::optional<std::string> json_schema_;
  bool json_object_ = false;
  std::optional<bool> parse_special_;
  bool chat_ = false;
  bool stream_ = true;
  bool echo_ = false;
  bool special_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeGenerateVerb() { return std::make_unique<GenerateVerb>(); }

}  // namespace kvasir::apps
