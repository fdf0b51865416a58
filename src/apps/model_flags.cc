#include "apps/model_flags.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "apps/terminal.h"
#include "base/limits.h"
#include "base/log.h"
#include "io/gguf.h"

namespace kvasir::apps {
namespace {

constexpr int64_t kMaxContext = int64_t{1} << 30;
constexpr int64_t kMostPoolTokens = int64_t{1} << 40;
constexpr std::string_view kCaches = "none|dynamic|static|paged[:N]|window:L|recompute:L|sink:S,L";

struct PatternName {
  AttentionPattern pattern;
  std::string_view name;
};
constexpr PatternName kPatternNames[] = {
    {AttentionPattern::kLocal, "local"}, {AttentionPattern::kAtrous, "atrous"}, {AttentionPattern::kSparse, "sparse"}};
constexpr std::string_view kAlternate = ",alternate";

}  // namespace

void ModelFlags::AddModel(FlagTable& flags) {
  flags.Text("-m,--model", "PATH", &model, "Hugging Face folder, .safetensors, .gguf or packed file.",
             "the demonstration model");
}

void ModelFlags::AddThreads(FlagTable& flags) {
  flags.Int("-t,--threads", "N", &threads, 1, 1024, "Threads to compute with.", "all processors this process may use");
}

void ModelFlags::AddDType(FlagTable& flags) {
  flags.Choice("--dtype", &dtype,
               {{"auto", std::nullopt}, {"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}},
               "Type that weights are held in.", "auto, as stored");
  flags.Choice(
      "--weights", &weights,
      {{"auto", std::nullopt}, {"int8", DType::kInt8}, {"nf4", DType::kNF4}, {"fp4", DType::kFP4}},
      "Round the layers' matrices on loading: LLM.int8(), or blocks of 64 four-bit codes. With --dtype f32 they "
      "are then widened again, which shows what the rounding itself costs.",
      "auto, as stored");
}

void ModelFlags::AddPrefillWeights(FlagTable& flags) {
  flags.Choice("--prefill-weights", &exact_prefill, {{"rounded", false}, {"exact", true}},
               "K-quants in prompts of 32 tokens and more: rounded once more to 8 bits, with a scale for 128 inputs, "
               "which is a fifth to a third faster where the processor multiplies bytes in AVX-512; or as they are.");
}

void ModelFlags::AddKvType(FlagTable& flags) {
  flags.Choice("--kv-type", &kv_type,
               {{"auto", std::nullopt},
                {"f32", KvType::kF32},
                {"bf16", KvType::kBF16},
                {"f16", KvType::kF16},
                {"i8", KvType::kI8},
                {"i4", KvType::kI4}},
               "Type of the KV cache; i8 has a scale per token and head, i4 scale and minimum per 32 channels.",
               "auto: f32 for f32 weights, else bf16");
}

void ModelFlags::AddContext(FlagTable& flags) {
  flags.Int("-c,--max-model-len,--ctx-size", "N", &context, 1, kMaxContext,
            "Context: tokens that prompt and answer may have together.", "the trained length, or what fits");
}

void ModelFlags::AddBatch(FlagTable& flags) {
  flags.Int("-b,--batch-size", "N", &batch, 1, 65536, "Tokens of a prompt run at once.");
}

void ModelFlags::AddCache(FlagTable& flags) {
  flags.Parsed(
      "--cache", kCaches,
      "KV cache: recompute everything (K1), grow (K2), allocate the whole context ahead (K3), or take blocks of N "
      "tokens (a multiple of 16; 32 if N is not given) from one pool for all sequences, which share the blocks of what "
      "they begin with alike (A4, K5: PagedAttention with a prefix tree). For texts of any length: keep the last L "
      "tokens (A9), run the last L tokens again at every step (A10), or keep the first S "
      "tokens and the last L - S (A11, StreamingLLM).",
      [this](std::string_view text) -> Status {
        ASSIGN_OR_RETURN(cache, ParseCachePolicy(text));
        return OkStatus();
      },
      [this] { return cache.Text(); });
  flags.Int("--pool-tokens", "N", &pool_tokens, 1, kMostPoolTokens,
            "With --cache paged: tokens that its pool holds, of all sequences together.",
            "the context for each sequence");
}

Result<CachePolicy> ParseCachePolicy(std::string_view text) {
  const size_t colon = std::min(text.find(':'), text.size());
  const std::string_view name = text.substr(0, colon);
  constexpr std::pair<std::string_view, CacheMode> kModes[] = {
      {"none", CacheMode::kNone},   {"dynamic", CacheMode::kDynamic}, {"static", CacheMode::kStatic},
      {"paged", CacheMode::kPaged}, {"window", CacheMode::kWindow},   {"recompute", CacheMode::kRecompute},
      {"sink", CacheMode::kSink}};
  const auto* const known = std::ranges::find(kModes, name, &std::pair<std::string_view, CacheMode>::first);
  if (known == std::end(kModes)) return InvalidArgument("\"{}\" is none of {}", text, kCaches);
  CachePolicy policy{.mode = known->second};
  const bool sized = policy.mode == CacheMode::kWindow || policy.mode == CacheMode::kRecompute;
  const bool sink = policy.mode == CacheMode::kSink;
  const bool paged = policy.mode == CacheMode::kPaged;
  if (!sized && !sink && (!paged || colon == text.size())) {
    if (colon < text.size()) return InvalidArgument("\"{}\": {} has no size", text, name);
    return policy;
  }
  const std::string_view sizes = text.substr(std::min(colon + 1, text.size()));
  const size_t comma = std::min(sizes.find(','), sizes.size());
  if (sizes.empty() || (comma < sizes.size()) != sink) {
    return InvalidArgument("\"{}\": write {}, such as {}", text,
                           sink ? "sink:S,L" : fmt::format("{}:{}", name, paged ? 'N' : 'L'),
                           sink ? "sink:4,256" : fmt::format("{}:{}", name, paged ? 64 : 256));
  }
  const auto number = [&](std::string_view digits) -> Result<int64_t> {
    auto value = paged ? internal::ParseInt(digits, kTileTokens, kMostPagedBlockTokens)
                       : internal::ParseInt(digits, 0, kMaxContext);
    return value.ok() ? value : Result<int64_t>(value.status().WithContext(fmt::format("\"{}\"", text)));
  };
  ASSIGN_OR_RETURN(const int64_t size, number(sizes.substr(sink ? comma + 1 : 0)));
  (paged ? policy.block_tokens : policy.bound.tokens) = size;
  if (sink) {
    ASSIGN_OR_RETURN(policy.bound.sinks, number(sizes.substr(0, comma)));
  }
  RETURN_IF_ERROR(policy.Validate());
  return policy;
}

void ModelFlags::AddAttention(FlagTable& flags) {
  flags.Parsed(
      "--attention", "KIND",
      "Attention to every key, by whole score matrices (plain, A1) or in tiles (flash, A2); or in tiles to keys at "
      "some distances only, the others left out of the work: up to K (local:K, A7), 0, K, 2K, … (atrous:K, A6), both "
      "(sparse:K, A8), or local in even and atrous in odd layers (sparse:K,alternate).",
      [this](std::string_view text) -> Status {
        ASSIGN_OR_RETURN(attention, ParseAttention(text));
        return OkStatus();
      },
      [this] { return AttentionText(attention); });
}

void ModelFlags::AddRope(FlagTable& flags) {
  flags.Text(
      "--rope-scaling", "KIND", &rope.scaling,
      "RoPE for longer texts than the model was trained on: none, or linear:F, dynamic:F or yarn:F with a factor, or "
      "a JSON object of any kind as config.json has it under rope_scaling.",
      "as the model says");
  flags.Number("--rope-scale", "F", &rope.factor, {.min = 1, .max = kMaxRopeFactor},
               "The factor, where --rope-scaling names the kind alone; by itself it is linear.", "as the model says");
  flags.Number("--rope-theta,--rope-freq-base", "X", &rope.theta, {.min = 1, .max = 1e12}, "RoPE's base.",
               "as the model says");
  flags.Int("--yarn-orig-ctx,--rope-original-context", "N", &rope.original_context, 1, kMaxContext,
            "Tokens that the model was trained on before any scaling.", "as the model says");
}

void ModelFlags::AddPreTokenizer(FlagTable& flags) {
  flags.Text("--pre", "NAME", &pre_tokenizer,
             "GGUF: how the vocabulary divides text; an unknown name lists the known ones.", "as the file says");
}

void ModelFlags::AddMemoryLimit(FlagTable& flags) {
  flags.Bytes("--memory-limit", &memory_limit,
              "Memory that kvasir may take; a model that needs more is refused before it is loaded.",
              "what the machine or its cgroup has free");
}

void ModelFlags::AddVerbose(FlagTable& flags) {
  flags.Switch("-v,--verbose", &verbose, "Log what is being done to standard error.");
}

void ModelFlags::AddAll(FlagTable& flags) {
  flags.Group("Model");
  AddModel(flags);
  AddContext(flags);
  AddThreads(flags);
  AddBatch(flags);
  AddDType(flags);
  AddPrefillWeights(flags);
  AddKvType(flags);
  AddCache(flags);
  AddAttention(flags);
  AddRope(flags);
  AddPreTokenizer(flags);
  AddMemoryLimit(flags);
}

void ModelFlags::ApplyVerbose() const {
  if (verbose) SetLogLevel(LogLevel::kInfo);
}

void ModelFlags::ApplyMemoryLimit() const { SetMemoryLimit(memory_limit); }

EngineOptions ModelFlags::Options() const {
  EngineOptions options;
  options.dtype = dtype;
  options.weights = weights;
  options.kv_type = kv_type;
  options.threads = threads.value_or(0);
  options.context = context.value_or(0);
  options.cache = cache;
  options.pool_tokens = pool_tokens.value_or(0);
  options.attention = attention;
  options.rope = rope;
  options.exact_prefill = exact_prefill;
  options.prefill_chunk = batch;
  options.max_sequences = 1;
  options.pre_tokenizer = pre_tokenizer;
  return options;
}

Result<AttentionMode> ParseAttention(std::string_view text) {
  if (text == "flash") return AttentionMode{};
  if (text == "plain") return AttentionMode{.plain = true};
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  for (const auto& [pattern, known] : kPatternNames) {
    if (name != known) continue;
    if (colon == text.npos) return InvalidArgument("\"{}\" needs a distance, as in {}:64", text, known);
    std::string_view rest = text.substr(colon + 1);
    AttentionMode mode{.pattern = pattern};
    if (pattern == AttentionPattern::kSparse && rest.ends_with(kAlternate)) {
      mode.pattern = AttentionPattern::kAlternating;
      rest.remove_suffix(kAlternate.size());
    }
    auto k = internal::ParseInt(rest, 1, kMaxPatternK);
    if (!k.ok()) return k.status().WithContext(known);
    mode.k = *k;
    return mode;
  }
  return InvalidArgument("\"{}\" is none of plain, flash, local:K, atrous:K, sparse:K and sparse:K,alternate", text);
}

std::string AttentionText(const AttentionMode& mode) {
  if (mode.pattern == AttentionPattern::kAll) return mode.plain ? "plain" : "flash";
  const bool alternating = mode.pattern == AttentionPattern::kAlternating;
  const AttentionPattern named = alternating ? AttentionPattern::kSparse : mode.pattern;
  const auto* const entry = std::ranges::find(kPatternNames, named, &PatternName::pattern);
  return fmt::format("{}:{}{}", entry->name, mode.k, alternating ? kAlternate : "");
}

Result<std::filesystem::path> FindModel(const std::string& model) {
  namespace fs = std::filesystem;
  if (!model.empty()) return fs::path(model);
  if (const char* variable = std::getenv("KVASIR_DEMO_MODEL"); variable && *variable) return fs::path(variable);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    const fs::path folder = program.parent_path();
    for (const fs::path& candidate : {folder.parent_path().parent_path() / "models" / "demo",
                                      folder.parent_path() / "share" / "kvasir" / "models" / "demo"}) {
      if (fs::exists(candidate / "config.json", error)) return candidate;
    }
  }
  return NotFound(
      "no model given, and the demonstration model is not where this program looks for it (models/demo of its source "
      "folder): give one with -m PATH, or its folder in KVASIR_DEMO_MODEL");
}

Result<std::unique_ptr<Engine>> LoadEngine(const ModelFlags& flags, EngineOptions options, bool quiet) {
  flags.ApplyVerbose();
  flags.ApplyMemoryLimit();
  ASSIGN_OR_RETURN(options.model, FindModel(flags.model));
  Progress progress("loading", !quiet);
  options.progress = [&](int64_t done, int64_t total) { progress.Update(done, total, HumanBytes(total)); };
  if (!quiet) options.planned = ShowPlan;
  return Engine::Load(options);
}

std::optional<std::filesystem::path> ConfigAlone(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return path.extension() == ".json" && !path.filename().string().ends_with(".index.json") ? std::optional(path)
                                                                                             : std::nullopt;
  }
  if (!fs::exists(path / "config.json", error)) return std::nullopt;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const std::string name = entry.path().filename().string();
    for (const char* ending : {".safetensors", ".safetensors.index.json", ".gguf", ".bin", ".pt", ".pth"}) {
      if (name.ends_with(ending)) return std::nullopt;
    }
  }
  return path / "config.json";
}

bool SessionExists(const std::string& path) {
  std::error_code error;
  return !path.empty() && std::filesystem::symlink_status(path, error).type() != std::filesystem::file_type::not_found;
}

void ShowPlan(const MemoryPlan& plan, int64_t available) {
  WriteStderr(plan.Text(available));
  if (!plan.note.empty()) Note(plan.note);
}

Result<std::unique_ptr<Tokenizer>> LoadModelTokenizer(const std::filesystem::path& path, const std::string& pre) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return NotFound("{}: no such file or folder", path.string());
  const auto from_model = [&]() -> Result<std::unique_ptr<Tokenizer>> {
    ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(path));
    if (files.gguf) return LoadTokenizer(*files.gguf, pre);
    if (!pre.empty()) return InvalidArgument("--pre is for GGUF files; {} is none", path.string());
    return LoadTokenizer(files.folder);
  };
  if (std::filesystem::is_directory(path, error)) {
    if (!pre.empty()) return from_model();
    auto tokenizer = LoadTokenizer(path);
    if (tokenizer.ok() || tokenizer.status().code() != StatusCode::kNotFound) return tokenizer;
    // It may be a folder that holds a GGUF file; if not, the first error says more.
    const auto files = OpenModelFiles(path);
    return files.ok() && files->gguf ? LoadTokenizer(*files->gguf) : std::move(tokenizer);
  }
  if (path.extension() == ".json" || path.extension() == ".model") {
    if (!pre.empty()) return InvalidArgument("--pre is for GGUF files; {} is none", path.string());
    return LoadTokenizerFile(path);
  }
  return from_model();
}

}  // namespace kvasir::apps
