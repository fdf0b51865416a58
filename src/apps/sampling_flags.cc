#include "apps/sampling_flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>

#include "apps/terminal.h"

namespace kvasir::apps {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();

// "ID=V" of --logit-bias.
Result<std::pair<TokenId, float>> ParseBias(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) return InvalidArgument("\"{}\" is not of the form ID=VALUE", text);
  ASSIGN_OR_RETURN(const int64_t id, internal::ParseInt(text.substr(0, equals), 0, kMaxInt));
  const std::string_view number = text.substr(equals + 1);
  float value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  // -inf bans a token, +inf is of no use.
  if (error != std::errc() || end != number.data() + number.size() || std::isnan(value) || value == INFINITY) {
    return InvalidArgument("\"{}\" is not a number or -inf", number);
  }
  return std::pair(static_cast<TokenId>(id), value);
}

template <typename To, typename From>
void Override(const std::optional<From>& flag, To* value) {
  if (flag) *value = static_cast<To>(*flag);
}

}  // namespace

void SamplingFlags::AddSampling(FlagTable& flags) {
  constexpr std::string_view kOwn = "the model's, else off";
  flags.Group("Length and end");
  flags.Int("-n,--max-new-tokens,--n-predict", "N", &max_new_tokens, -1, kMaxInt,
            "New tokens at most; -1: until the context is full.", "the model's, else 128");
  flags.Int("--min-new-tokens", "N", &min_new_tokens, 0, kMaxInt, "The end of the text is impossible before.",
            "the model's, else 0");
  flags.Switch("--ignore-eos", &ignore_eos, "The end of the text is impossible; only the length ends it.");
  flags.Texts("--stop,--reverse-prompt", "TEXT", &stop, "End before this text.");

  flags.Group("Sampling");
  flags.Number("--temp,--temperature", "X", &temperature, Range{0, 100}, "Temperature; 0 is greedy.",
               "the model's, else 0");
  flags.Int("--top-k", "K", &top_k, 0, kMaxInt, "Only the K likeliest tokens; 0: off.", kOwn);
  flags.Number("--top-p", "P", &top_p, Range{.min = 0, .max = 1, .open_min = true},
               "Only the likeliest tokens that together reach P.", kOwn);
  flags.Number("--min-p", "P", &min_p, Range{0, 1}, "Only tokens at least P times as likely as the likeliest.", kOwn);
  flags.Number("--typical-p,--typical", "P", &typical_p, Range{.min = 0, .max = 1, .open_min = true},
               "Locally typical sampling.", kOwn);
  flags.Number("--repeat-penalty,--repetition-penalty", "X", &repetition_penalty,
               Range{.min = 0, .max = 1000, .open_min = true}, "Divides the logits of tokens seen before; 1: off.",
               kOwn);
  flags.Number("--presence-penalty", "X", &presence_penalty, Range{-2, 2},
               "Subtracted from logits of tokens generated before.", "0");
  flags.Number("--frequency-penalty", "X", &frequency_penalty, Range{-2, 2},
               "Subtracted for each time a token was generated before.", "0");
  flags.Int("--no-repeat-ngram", "N", &no_repeat_ngram, 0, kMaxInt, "No N tokens twice in a row; 0: off.", kOwn);
  flags.Texts("--logit-bias", "ID=X", &logit_bias, "Added to the logit of a token; -inf bans it.");
  flags.Int("-s,--seed", "N", &seed, -1, std::numeric_limits<int64_t>::max(),
            "The same seed gives the same text; -1: a new one each time.");
}

Result<int32_t> SamplingFlags::MaxNewTokens(const GenerationDefaults& defaults, int64_t prompt_tokens,
                                            int64_t context) const {
  const int64_t asked = max_new_tokens.value_or(defaults.max_new_tokens.value_or(128));
  if (asked == 0) return InvalidArgument("-n 0: there is nothing to generate; give at least 1, or -1 for no limit");
  if (asked > 0) return static_cast<int32_t>(std::min(asked, kMaxInt));
  return static_cast<int32_t>(std::clamp<int64_t>(context - prompt_tokens, 1, kMaxInt));
}

Status SamplingFlags::Apply(const GenerationDefaults& defaults, GenerationRequest* request) const {
  SamplingParams& params = request->sampling;
  params = defaults.sampling;
  Override(temperature, &params.temperature);
  Override(top_k, &params.top_k);
  Override(top_p, &params.top_p);
  Override(min_p, &params.min_p);
  Override(typical_p, &params.typical_p);
  Override(repetition_penalty, &params.repetition_penalty);
  Override(presence_penalty, &params.presence_penalty);
  Override(frequency_penalty, &params.frequency_penalty);
  Override(no_repeat_ngram, &params.no_repeat_ngram);
  Override(min_new_tokens, &params.min_new_tokens);
  if (ignore_eos) params.ignore_eos = true;
  for (const std::string& text : logit_bias) {
    auto bias = ParseBias(text);
    if (!bias.ok()) return bias.status().WithContext("--logit-bias");
    params.logit_bias[bias->first] = bias->second;
  }
  params.seed = static_cast<uint64_t>(seed);
  if (seed == -1) {
    std::random_device device;
    params.seed = (uint64_t{device()} << 31 | device()) & 0x7fffffffffffffff;
  }
  request->stop = stop;
  if (params.greedy() && (top_k || top_p || min_p || typical_p)) {
    Note("--top-k, --top-p, --min-p and --typical-p change nothing at temperature 0 (greedy); give --temp too");
  }
  return OkStatus();
}

void BeamFlags::Add(FlagTable& flags) {
  flags.Group("Several answers");
  flags.Int("-N,--num-samples", "N", &num_samples, 1, 256, "Samples from one prompt, which share its cache.");
  flags.Int("--num-beams", "N", &num_beams, 1, 256, "Beam search of this width; 1: off.", "the model's, else 1");
  flags.Int("--num-return", "N", &num_return, 1, 256, "Beams to return.", "1");
  flags.Number("--length-penalty", "X", &length_penalty, Range{-100, 100},
               "Beam scores are divided by length to this power.", "the model's, else 1");
  flags.Choice("--early-stopping", &early_stopping,
               {{"false", EarlyStopping::kFalse}, {"true", EarlyStopping::kTrue}, {"never", EarlyStopping::kNever}},
               "When beam search ends, as in Hugging Face's generate.", "the model's, else false");
}

Status BeamFlags::Apply(const GenerationDefaults& defaults, GenerationRequest* request) const {
  request->beams = defaults.beams;
  Override(num_beams, &request->beams.num_beams);
  Override(num_return, &request->beams.num_return);
  Override(length_penalty, &request->beams.length_penalty);
  Override(early_stopping, &request->beams.early_stopping);
  request->beams.max_new_tokens = request->max_new_tokens;
  request->n = num_samples;
  const bool beams = request->beams.num_beams > 1;
  if (beams && num_samples > 1) {
    return InvalidArgument("--num-samples {} and --num-beams {}: choose one; --num-return gives several beams",
                           num_samples, request->beams.num_beams);
  }
  if (!beams && num_return && *num_return > 1) {
    return InvalidArgument("--num-return {} needs --num-beams of at least as many; for samples use --num-samples",
                           *num_return);
  }
  if (beams && request->beams.num_return > request->beams.num_beams) {
    return InvalidArgument("--num-return {} is more than --num-beams {}", request->beams.num_return,
                           request->beams.num_beams);
  }
  if (num_samples > 1 && request->sampling.greedy()) {
    Note("all samples are the same at temperature 0 (greedy); give --temp too");
  }
  if (beams) {
    request->n = request->beams.num_return;
    if (request->sampling.temperature > 0) Note("beam search does not sample: --temp and its like change nothing");
  }
  return OkStatus();
}

int64_t BeamFlags::MaxSequences() const { return std::max(num_samples, num_beams.value_or(1)); }

}  // namespace kvasir::apps
