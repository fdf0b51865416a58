// kvasir analyze: what a model takes, from its config alone.
#include <boost/json/array.hpp>

#include "apps/model_flags.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "apps/verb.h"
#include "base/checked.h"

namespace kvasir::apps {
namespace {

/// The cache of a run in one type.
struct KvNeed {
  KvType type;
  int64_t per_token = 0;
  int64_t formula = 0;    // tokens · per_token, of all sequences
  int64_t allocated = 0;  // by the growing cache, whose sequences have whole blocks
};

class AnalyzeVerb final : public Verb {
 public:
  std::string_view name() const override { return "analyze"; }
  std::string_view summary() const override { return "Work out from a config what a model's KV cache takes."; }
  std::string_view description() const override {
    return "usage: kvasir analyze --kv [-m] MODEL|config.json [--sequences B] [--prompt-tokens S] [-n N] [--json]\n\n"
           "The KV cache's bytes for B sequences of S + N tokens in every type: 2 · layers · KV heads · head size ·\n"
           "bytes of a value for each token (and scales, where values are codes), and what the engine allocates,\n"
           "which is that in whole blocks of tokens. MODEL may be a config.json, a folder or a file.\n"
           "  kvasir analyze --kv my-model/config.json --sequences 64 --prompt-tokens 512 -n 32\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Model");
    model_.AddModel(flags);
    flags.Positional("--model");
    flags.Group("What is analysed");
    flags.Switch("--kv", &kv_, "The KV cache (K6).");
    flags.Int("--sequences,--batch", "B", &sequences_, 1, 1 << 20, "Sequences at once.");
    flags.Int("--prompt-tokens", "S", &prompt_, 0, int64_t{1} << 30, "Tokens of each prompt.");
    flags.Int("-n,--max-new-tokens", "N", &new_, 0, int64_t{1} << 30, "Tokens that follow.");
    flags.Group("Output");
    flags.Switch("--json", &json_, "Print one object.");
    model_.AddVerbose(flags);
  }

  Status Run() override {
    model_.ApplyVerbose();
    if (!kv_) return InvalidArgument("say what to analyse: --kv, the KV cache");
    if (prompt_ + new_ < 1 || prompt_ + new_ > kMostKvTokens) {
      return InvalidArgument("{} prompt tokens and {} new ones; a sequence has 1 to {}", prompt_, new_, kMostKvTokens);
    }
    ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(model_.model));
    ASSIGN_OR_RETURN(const DecoderSpec spec, ReadSpec(path));
    std::vector<KvNeed> needs;
    for (KvType type : {KvType::kF32, KvType::kBF16, KvType::kF16, KvType::kI8, KvType::kI4}) {
      ASSIGN_OR_RETURN(needs.emplace_back(), Need(spec, type));
    }
    return json_ ? PrintJson(path, spec, needs) : WriteText(Text(path, spec, needs));
  }

 private:
  static Result<DecoderSpec> ReadSpec(const std::filesystem::path& path) {
    if (const auto config = ConfigAlone(path)) return ReadConfig(*config);
    auto files = OpenModelFiles(path);
    if (!files.ok()) return files.status();
    return std::move(files->spec);
  }

  int64_t tokens() const { return prompt_ + new_; }

  Result<KvNeed> Need(const DecoderSpec& spec, KvType type) const {
    const std::vector<KvLayerShape> shapes = KvShapes(spec);
    ASSIGN_OR_RETURN(const std::unique_ptr<KvCache> cache,
                     MakeKvCache(CacheKind::kDynamic, {.layers = shapes, .type = type, .max_tokens = tokens()}));
    KvNeed need{.type = type, .per_token = KvBytesPerToken(shapes, type)};
    const auto one = CheckedMul(need.per_token, tokens());
    const auto all = one ? CheckedMul(*one, sequences_) : std::nullopt;
    const auto blocks = CheckedMul(cache->BytesFor(tokens()), sequences_);
    if (!all || !blocks) {
      return InvalidArgument("{} sequences of {} tokens: more bytes than can be counted", sequences_, tokens());
    }
    need.formula = *all;
    need.allocated = *blocks;
    return need;
  }

  /// How many times fewer KV heads than query heads there are, over all layers.
  static double Sharing(const DecoderSpec& spec) {
    int64_t query = 0;
    int64_t kv = 0;
    for (const LayerSpec& layer : spec.layers) {
      query += int64_t{layer.attention.n_heads} * layer.attention.head_dim;
      kv += int64_t{layer.attention.n_kv_heads} * layer.attention.head_dim;
    }
    return kv > 0 ? static_cast<double>(query) / static_cast<double>(kv) : 1.0;
  }

  std::string Text(const std::filesystem::path& path, const DecoderSpec& spec, const std::vector<KvNeed>& needs) const {
    const AttentionSpec& first = spec.layers.front().attention;
    std::string text = fmt::format(
        "model      {}\n"
        "attention  {} layers, {} query heads and {} KV heads of {} in the first{}\n"
        "cache      {} sequence{} of {} + {} tokens\n\n"
        "{:<6}{:>16}{:>22}{:>22}\n",
        path.string(), spec.layers.size(), first.n_heads, first.n_kv_heads, first.head_dim,
        Sharing(spec) > 1 ? fmt::format(": {:.3g} times less than one for each query head", Sharing(spec)) : "",
        sequences_, sequences_ == 1 ? "" : "s", prompt_, new_, "type", "bytes a token", "bytes", "allocated");
    for (const KvNeed& need : needs) {
      text += fmt::format("{:<6}{:>16}{:>22}{:>22}  {}\n", KvTypeName(need.type), need.per_token, need.formula,
                          need.allocated, GigabytesText(need.allocated));
    }
    return text;
  }

  Status PrintJson(const std::filesystem::path& path, const DecoderSpec& spec, const std::vector<KvNeed>& needs) const {
    boost::json::array types;
    for (const KvNeed& need : needs) {
      types.push_back({{"type", KvTypeName(need.type)},
                       {"bytes_per_token", need.per_token},
                       {"bytes", need.formula},
                       {"allocated_bytes", need.allocated}});
    }
    return WriteStdout(JsonLine({{"path", path.string()},
                                 {"layers", spec.layers.size()},
                                 {"query_heads_per_kv_head", Sharing(spec)},
                                 {"sequences", sequences_},
                                 {"prompt_tokens", prompt_},
                                 {"new_tokens", new_},
                                 {"kv_cache", std::move(types)}}));
  }

  ModelFlags model_;
  bool kv_ = false;
  bool json_ = false;
  int64_t sequences_ = 1;
  int64_t prompt_ = 512;
  int64_t new_ = 0;
};

}  // namespace

std::unique_ptr<Verb> MakeAnalyzeVerb() { return std::make_unique<AnalyzeVerb>(); }

}  // namespace kvasir::apps
