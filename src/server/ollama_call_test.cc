#include "server/ollama_call.h"

#include "server/testing.h"

namespace kvasir::server {
namespace {

struct Outcome {
  OllamaCall call;
  std::optional<ApiError> error;
};

Outcome Read(OllamaRoute route, std::string_view body) {
  Outcome outcome;
  outcome.error = ReadOllama(route, ServedDemo::Get().context(), Parsed(body).get_object(), outcome.call);
  return outcome;
}

OllamaCall Good(OllamaRoute route, std::string_view body) {
  Outcome outcome = Read(route, body);
  EXPECT_FALSE(outcome.error) << body << ": " << outcome.error->message;
  return std::move(outcome.call);
}

std::string PromptOf(const OllamaCall& call) { return ServedDemo::Get().Text(call.prompts.front().prompt); }

TEST(OllamaCallTest, OptionsBecomeSampling) {
  const OllamaCall call = Good(OllamaRoute::kGenerate,
                               R"({"model": "demo", "prompt": "a", "options": {"temperature": 0.25, "top_k": 7,
                                   "top_p": 0.5, "min_p": 0.125, "typical_p": 0.75, "seed": 9, "num_predict": 11,
                                   "stop": ["x", "y"], "repeat_penalty": 1.5, "presence_penalty": 1,
                                   "frequency_penalty": -1, "num_ctx": 128, "num_gpu": 1, "n": 4,
                                   "logit_bias": {"1": 5}, "stream": "no"}})");
  const GenerationRequest& request = call.prompts.at(0);
  const SamplingParams& sampling = request.sampling;
  EXPECT_EQ(sampling.temperature, 0.25f);
  EXPECT_EQ(sampling.top_k, 7);
  EXPECT_EQ(sampling.top_p, 0.5f);
  EXPECT_EQ(sampling.min_p, 0.125f);
  EXPECT_EQ(sampling.typical_p, 0.75f);
  EXPECT_EQ(sampling.seed, 9u);
  EXPECT_EQ(sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(sampling.presence_penalty, 1.0f);
  EXPECT_EQ(sampling.frequency_penalty, -1.0f);
  EXPECT_EQ(request.max_new_tokens, 11);
  EXPECT_EQ(request.stop.at(1), "y");
  // Names that are no options of Ollama's mean nothing, whatever they mean elsewhere.
  EXPECT_EQ(request.n, 1);
  EXPECT_TRUE(sampling.logit_bias.empty());
  EXPECT_TRUE(call.stream);
}

TEST(OllamaCallTest, LengthsWithoutAnEnd) {
  for (const char* const most : {"-1", "-2", "0"}) {
    const auto call =
        Good(OllamaRoute::kGenerate, fmt::format(R"({{"prompt": "a", "options": {{"num_predict": {}}}}})", most));
    EXPECT_EQ(call.prompts.at(0).max_new_tokens, std::numeric_limits<int32_t>::max());
  }
}

TEST(OllamaCallTest, NamesWithAndWithoutATag) {
  for (const char* const name : {"demo", "demo:latest", "group/other:7b"}) {
    const auto call = Good(OllamaRoute::kGenerate, fmt::format(R"({{"model": "{}"}})", name));
    EXPECT_TRUE(call.load_only);
    EXPECT_EQ(call.model, name);
  }
  EXPECT_EQ(Read(OllamaRoute::kGenerate, R"({"name": "group/other"})").error->status, 404);
  EXPECT_EQ(WithOllamaTag("demo"), "demo:latest");
  EXPECT_EQ(WithOllamaTag("group/other:7b"), "group/other:7b");
  EXPECT_EQ(WithOllamaTag("host:5000/x"), "host:5000/x:latest");
}

TEST(OllamaCallTest, RawPromptsKnowNoTemplate) {
  EXPECT_EQ(PromptOf(Good(OllamaRoute::kGenerate, R"({"prompt": "A fox", "raw": true, "system": "S"})")), "A fox");
  EXPECT_EQ(PromptOf(Good(OllamaRoute::kGenerate, R"({"prompt": "A fox", "system": "Tell"})")),
            "system: Telluser: A fox");
}

TEST(OllamaCallTest, MessagesOfTools) {
  const auto call = Good(OllamaRoute::kChat,
                         R"({"messages": [{"role": "user", "content": "?"},
                             {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
                             {"role": "tool", "tool_name": "f", "content": "done"}],
                             "tools": [{"type": "function", "function": {"name": "f"}}]})");
  const std::string prompt = PromptOf(call);
  EXPECT_NE(prompt.find(R"([{"type": "function", "function": {"name": "f"}}]user: ?assistant: )"), prompt.npos)
      << prompt;
  EXPECT_NE(prompt.find(R"("arguments": {"a": 1})"), prompt.npos) << prompt;
  EXPECT_TRUE(prompt.ends_with("tool: done")) << prompt;
  EXPECT_EQ(call.tools, ToolSyntax::kTagged);
}

TEST(OllamaCallTest, FormatsAreConstraints) {
  for (const char* const format : {R"("json")", R"({"type": "integer"})"}) {
    const auto call = Good(OllamaRoute::kGenerate, fmt::format(R"({{"prompt": "a", "format": {}}})", format));
    EXPECT_NE(call.prompts.at(0).constraint, nullptr);
  }
  for (const char* const format : {R"("")", "null"}) {
    const auto call = Good(OllamaRoute::kGenerate, fmt::format(R"({{"prompt": "a", "format": {}}})", format));
    EXPECT_EQ(call.prompts.at(0).constraint, nullptr);
  }
}

TEST(OllamaCallTest, ErrorsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"messages": [{"role": "user", "content": "a", "images": ["x"]}]})", "messages[0].images"},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "x"}]})", "messages[1].role"},
      {R"({"messages": [7]})", "messages[0]"},
      {R"({"messages": {}})", "messages"},
      {R"({"options": {"top_p": 2}})", "options.top_p"},
      {R"({"options": {"num_ctx": 100000}})", "options.num_ctx"},
      {R"({"options": {"mirostat": 1}})", "options.mirostat"},
      {R"({"options": {"presence_penalty": 1, "repeat_last_n": 0}})", "options.repeat_last_n"},
      {R"({"options": 3})", "options"},
      {R"({"format": 3})", "format"},
      {R"({"format": {"type": "cat"}})", "format"},
      {R"({"stream": 0})", "stream"},
      {R"({"model": 3})", "model"},
  };
  for (const auto& [body, param] : cases) {
    const Outcome outcome = Read(OllamaRoute::kChat, body);
    ASSERT_TRUE(outcome.error) << body;
    EXPECT_EQ(outcome.error->param, param) << outcome.error->message;
    EXPECT_EQ(outcome.error->status, 400);
  }
}

}  // namespace
}  // namespace kvasir::server
