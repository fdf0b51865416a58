#include "engine/generation_config.h"

#include "io/json.h"

namespace kvasir {
namespace {

Result<float> FloatOf(const JsonReader& reader, std::string_view key, double fallback) {
  ASSIGN_OR_RETURN(const double value, reader.Number({key}, fallback));
  return static_cast<float>(value);
}

Status ReadSampling(const JsonReader& reader, SamplingParams& sampling) {
  ASSIGN_OR_RETURN(const bool do_sample, reader.Bool({"do_sample"}, false));
  if (do_sample) {
    ASSIGN_OR_RETURN(sampling.temperature, FloatOf(reader, "temperature", 1.0));
    ASSIGN_OR_RETURN(const int64_t top_k, reader.Int({"top_k"}, 0, int64_t{1} << 31, 50));
    sampling.top_k = static_cast<int32_t>(std::min<int64_t>(top_k, INT32_MAX));
    ASSIGN_OR_RETURN(sampling.top_p, FloatOf(reader, "top_p", 1.0));
    ASSIGN_OR_RETURN(sampling.min_p, FloatOf(reader, "min_p", 0.0));
    ASSIGN_OR_RETURN(sampling.typical_p, FloatOf(reader, "typical_p", 1.0));
  }
  ASSIGN_OR_RETURN(sampling.repetition_penalty, FloatOf(reader, "repetition_penalty", 1.0));
  ASSIGN_OR_RETURN(const int64_t ngram, reader.Int({"no_repeat_ngram_size"}, 0, 1'000'000, 0));
  sampling.no_repeat_ngram = static_cast<int32_t>(ngram);
  ASSIGN_OR_RETURN(const int64_t min_new, reader.Int({"min_new_tokens"}, 0, INT32_MAX, 0));
  sampling.min_new_tokens = static_cast<int32_t>(min_new);
  return OkStatus();
}

Status ReadBeams(const JsonReader& reader, BeamParams& beams) {
  ASSIGN_OR_RETURN(const int64_t num_beams, reader.Int({"num_beams"}, 1, 1024, 1));
  beams.num_beams = static_cast<int32_t>(num_beams);
  ASSIGN_OR_RETURN(const int64_t num_return, reader.Int({"num_return_sequences"}, 1, 1024, 1));
  beams.num_return = static_cast<int32_t>(num_return);
  ASSIGN_OR_RETURN(beams.length_penalty, FloatOf(reader, "length_penalty", 1.0));
  const json::value* early = reader.Find({"early_stopping"});
  if (early && early->is_bool()) {
    beams.early_stopping = early->get_bool() ? EarlyStopping::kTrue : EarlyStopping::kFalse;
  } else if (early && early->is_string() && early->get_string() == "never") {
    beams.early_stopping = EarlyStopping::kNever;
  } else if (early) {
    return InvalidData("{}: early_stopping must be true, false or \"never\"", reader.what());
  }
  return OkStatus();
}

}  // namespace

Result<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& folder, const DecoderSpec& spec,
                                                  const Tokenizer* tokenizer) {
  GenerationDefaults defaults;
  const std::filesystem::path path = folder / "generation_config.json";
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    ASSIGN_OR_RETURN(const json::value config, ParseJsonFile(path));
    if (!config.is_object()) return InvalidData("{}: is not a JSON object", path.string());
    const JsonReader reader(config.get_object(), path.string());
    RETURN_IF_ERROR(ReadSampling(reader, defaults.sampling));
    RETURN_IF_ERROR(ReadBeams(reader, defaults.beams));
    if (reader.Has({"max_new_tokens"})) {
      ASSIGN_OR_RETURN(const int64_t max_new, reader.Int({"max_new_tokens"}, 1, INT32_MAX));
      defaults.max_new_tokens = static_cast<int32_t>(max_new);
    }
    ASSIGN_OR_RETURN(const std::vector<int64_t> eos, reader.IntList({"eos_token_id"}, 0, int64_t{spec.vocab_size} - 1));
    defaults.eos.assign(eos.begin(), eos.end());
    const Status valid = defaults.sampling.Validate(spec.vocab_size);
    if (!valid.ok()) return valid.WithContext(path.string());
  }
  if (defaults.eos.empty()) defaults.eos = spec.eos_ids;
  if (defaults.eos.empty() && tokenizer) {
    for (TokenId id : tokenizer->vocab().eos) {
      if (id < spec.vocab_size) defaults.eos.push_back(id);
    }
  }
  return defaults;
}

}  // namespace kvasir
