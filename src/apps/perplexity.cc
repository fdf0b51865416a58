// kvasir perplexity: how well a model predicts a text.
#include <algorithm>
#include <cmath>

#include <boost/json/array.hpp>

#include "apps/model_flags.h"
#include "apps/prompt_input.h"
#include "apps/report.h"
#include "apps/stream_losses.h"
#include "apps/terminal.h"
#include "apps/token_windows.h"
#include "apps/verb.h"
#include "decode/softmax.h"

namespace kvasir::apps {
namespace {

class PerplexityVerb final : public Verb {
 public:
  std::string_view name() const override { return "perplexity"; }
  std::string_view summary() const override { return "Measure the perplexity of a text file."; }
  std::string_view description() const override {
    return "usage: kvasir perplexity [-m MODEL] -f FILE [-c N] [--stride N] [flags]\n\n"
           "Strided windows as in Hugging Face's guide: windows of -c tokens begin every --stride tokens, and a "
           "window\n"
           "scores the tokens that no earlier one scored. Every token but the first is scored exactly once.\n"
           "--mode chunks is llama.cpp's: windows side by side, BOS first in each, scored in their second half.\n"
           "--mode stream reads the text once, from end to end and token by token, as a model that never stops would:\n"
           "every token is scored from what --cache still keeps, and a series shows how that drifts. A cache that "
           "keeps\n"
           "every token needs a -c for all of the text; window, recompute and sink go on for ever.\n"
           "--reference compares with another model, as a rounded one with what it was made from: the mean\n"
           "Kullback-Leibler divergence of this model's distributions from the other's, and how often both find the\n"
           "same token likeliest.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Input");
    prompt_.Add(flags);
    flags.Group("Windows");
    flags.Choice("--mode", &mode_,
                 {{"strided", WindowMode::kStrided}, {"chunks", WindowMode::kChunks}, {"stream", WindowMode::kStream}},
                 "How the text is divided.");
    flags.Int("--stride", "N", &stride_, 1, int64_t{1} << 30, "Tokens from one window to the next.",
              "half the context");
    flags.Int("--max-tokens", "N", &max_tokens_, 2, int64_t{1} << 40, "Read no more tokens than this.", "all");
    flags.Int("--every", "N", &every_, 1, int64_t{1} << 30,
              "With --mode stream: score every N-th token only, which spares --cache recompute the others' work.");
    flags.Int("--series", "N", &series_step_, 1, int64_t{1} << 30,
              "With --mode stream: tokens of the text in each entry of the series.");
    flags.Group("Comparison");
    flags.Text("--reference", "PATH", &reference_path_, "Compare with this model, run as it is stored.");
    flags.Group("Output");
    flags.Switch(
        "--json", &json_,
        "Print {\"tokens\", \"nll\", \"ppl\"}: nll is the mean per token, in nats; with --reference also "
        "{\"kl\", \"same_top\"}: nats, and a share of 1; with --mode stream \"series\": the same by stretches, "
        "each up to token \"end\" of the text.");
    model_.AddAll(flags);
    model_.AddVerbose(flags);
  }

  Status Run() override {
    ASSIGN_OR_RETURN(const std::string text, prompt_.Read(false));
    EngineOptions options = model_.Options();
    ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, LoadEngine(model_, options, json_));
    if (!engine->tokenizer()) return NotFound("this model has no tokenizer, so it cannot read a text");
    ASSIGN_OR_RETURN(std::vector<TokenId> tokens, engine->tokenizer()->Encode(text));
    if (max_tokens_ && static_cast<int64_t>(tokens.size()) > *max_tokens_) {
      tokens.resize(static_cast<size_t>(*max_tokens_));
    }
    if (mode_ == WindowMode::kStream) return Stream(*engine, tokens);
    if (every_ > 1) return InvalidArgument("--every is for --mode stream; windows score every token they can");
    // A bounded cache has room for any text, but windows are as long as those of the others.
    const int64_t trained = engine->model().spec().context;
    const int64_t context = model_.context || trained == 0 ? engine->context() : std::min(engine->context(), trained);
    const int64_t least = mode_ == WindowMode::kStrided ? 2 : 4;
    if (context < least) {
      return InvalidArgument("a context of {} has nothing to score; give -c {} or more", context, least);
    }
    const int64_t stride = stride_.value_or(std::max<int64_t>(1, context / 2));
    if (stride > context) return InvalidArgument("--stride {} is more than the context of {}", stride, context);
    const auto windows = mode_ == WindowMode::kStrided
                             ? StridedWindows(static_cast<int64_t>(tokens.size()), context, stride)
                             : ChunkWindows(static_cast<int64_t>(tokens.size()), context);
    if (windows.empty()) {
      return InvalidArgument("the text has {} tokens; {} are needed at least", tokens.size(),
                             mode_ == WindowMode::kStrided ? least : context);
    }
    RETURN_IF_ERROR(LoadReference(options, *engine));
    return Measure(*engine, tokens, windows);
  }

 private:
  Status LoadReference(EngineOptions options, const Engine& engine) {
    if (reference_path_.empty()) return OkStatus();
    options.model = reference_path_;
    options.context = engine.context();
    options.dtype.reset();
    options.weights.reset();
    options.kv_type.reset();
    options.pre_tokenizer.clear();
    options.load_tokenizer = false;
    ASSIGN_OR_RETURN(reference_, Engine::Load(options));
    const int32_t own = engine.model().spec().vocab_size;
    const int32_t other = reference_->model().spec().vocab_size;
    if (own != other) {
      return InvalidArgument("--reference {}: a vocabulary of {} tokens, the model's has {}", reference_path_, other,
                             own);
    }
    return OkStatus();
  }

  /// The reference's logits for the same rows, kept until the model's own come.
  Status RunReference(const std::vector<TokenId>& input, int64_t first_row) {
    constexpr int64_t kMostBytes = int64_t{4} << 30;
    reference_logits_.clear();
    if (!reference_) return OkStatus();
    const int64_t rows = static_cast<int64_t>(input.size()) - first_row;
    const int64_t vocab = reference_->model().spec().vocab_size;
    if (rows * vocab > kMostBytes / 4) {
      return InvalidArgument("{} rows of {} logits are too many to compare at once; give a smaller -c", rows, vocab);
    }
    reference_logits_.reserve(static_cast<size_t>(rows * vocab));
    return reference_->ForEachLogits(input, first_row, [&](int64_t, MatView<const float> logits) {
      reference_logits_.insert(reference_logits_.end(), logits.data, logits.data + logits.rows * logits.cols);
      return OkStatus();
    });
  }

  /// Adds what one row differs by. `index`: of the row among those of the window.
  void Compare(int64_t index, std::span<const float> row, const RowSummary& summary) {
    const std::span<const float> reference(reference_logits_.data() + index * static_cast<int64_t>(row.size()),
                                           row.size());
    const RowSummary other = Summarize(reference);
    double sum = 0.0;
    for (size_t v = 0; v < row.size(); ++v) {
      const double log_p = other.LogProb(reference[v]);
      if (std::isfinite(log_p)) sum += std::exp(log_p) * (log_p - summary.LogProb(row[v]));
    }
    divergence_ += sum;
    const auto top = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
    same_top_ += static_cast<int64_t>(top(row) == top(reference));
  }

  Status Stream(Engine& engine, const std::vector<TokenId>& tokens) {
    const auto length = static_cast<int64_t>(tokens.size());
    if (!reference_path_.empty()) return InvalidArgument("--reference compares windows; --mode stream has none");
    if (stride_) return InvalidArgument("--stride is for --mode strided; a stream is read token by token");
    if (length <= every_) {
      return InvalidArgument("the text has {} tokens; --every {} needs more", length, every_);
    }
    Progress progress("perplexity", !json_);
    ASSIGN_OR_RETURN(const StreamLosses scored,
                     ScoreStream(engine, tokens, every_, series_step_, [&](int64_t read, const Losses& all) {
                       progress.Update(read, length - 1, fmt::format("ppl {:.4f}", all.Perplexity()));
                     }));
    return PrintStream(scored.all, scored.parts);
  }

  Status PrintStream(const Losses& all, const std::vector<StreamPart>& series) const {
    if (json_) {
      boost::json::array entries;
      for (const StreamPart& entry : series) {
        boost::json::object object{{"end", entry.end},
                                   {"tokens", entry.losses.count},
                                   {"nll", entry.losses.Mean()},
                                   {"ppl", entry.losses.Perplexity()}};
        entries.push_back(std::move(object));
      }
      return WriteStdout(JsonLine({{"tokens", all.count},
                                   {"nll", all.Mean()},
                                   {"ppl", all.Perplexity()},
                                   {"cache", model_.cache.Text()},
                                   {"every", every_},
                                   {"series", std::move(entries)}}));
    }
    std::string text = fmt::format("up to token  perplexity, --cache {}\n", model_.cache.Text());
    for (const StreamPart& entry : series) {
      text += fmt::format("{:>11}  {:.4f}\n", entry.end, entry.losses.Perplexity());
    }
    const std::string chosen = every_ > 1 ? fmt::format(", every {}-th of the text", every_) : std::string();
    return WriteText(text + fmt::format("perplexity {:.4f} ± {:.4f} ({} tokens{}, {:.5f} nats per token)\n",
                                        all.Perplexity(), all.Perplexity() * all.Error(), all.count, chosen,
                                        all.Mean()));
  }

  Status Measure(Engine& engine, const std::vector<TokenId>& tokens, const std::vector<TokenWindow>& windows) {
    Losses losses;
    Progress progress("perplexity", !json_);
    for (size_t w = 0; w < windows.size(); ++w) {
      const TokenWindow& window = windows[w];
      std::vector<TokenId> input(tokens.begin() + window.begin, tokens.begin() + window.end);
      const std::vector<TokenId> targets = input;
      const auto bos = engine.tokenizer()->vocab().bos;
      if (mode_ == WindowMode::kChunks && bos) input.front() = *bos;
      // The last token predicts nothing that is known.
      input.pop_back();
      // A row predicts the token after it.
      const int64_t first_row = std::max<int64_t>(window.first_scored - 1, 0);
      const auto score = [&](int64_t first, MatView<const float> logits) -> Status {
        for (int64_t r = 0; r < logits.rows; ++r) {
          const int64_t target = first + r + 1;
          const std::span<const float> row(logits.row(r), static_cast<size_t>(logits.cols));
          const RowSummary summary = Summarize(row);
          ASSIGN_OR_RETURN(const double loss,
                           TokenLoss(summary, row, targets[static_cast<size_t>(target)], window.begin + target));
          if (reference_) Compare(first + r - first_row, row, summary);
          losses.Add(loss);
        }
        return OkStatus();
      };
      RETURN_IF_ERROR(RunReference(input, first_row));
      RETURN_IF_ERROR(engine.ForEachLogits(input, first_row, score));
      progress.Update(static_cast<int64_t>(w + 1), static_cast<int64_t>(windows.size()),
                      fmt::format("ppl {:.4f}", losses.Perplexity()));
    }
    return Print(losses);
  }

  Status Print(const Losses& losses) const {
    const auto n = static_cast<double>(losses.count);
    const double mean = losses.Mean();
    const double ppl = losses.Perplexity();
    const double kl = divergence_ / n;
    const double same_top = static_cast<double>(same_top_) / n;
    if (json_) {
      boost::json::object out{{"tokens", losses.count}, {"nll", mean}, {"ppl", ppl}};
      if (reference_) {
        out["kl"] = kl;
        out["same_top"] = same_top;
      }
      return WriteStdout(JsonLine(out));
    }
    std::string text = fmt::format("perplexity {:.4f} ± {:.4f} ({} tokens, {:.5f} nats per token)\n", ppl,
                                   ppl * losses.Error(), losses.count, mean);
    if (reference_) {
      text += fmt::format("divergence from {}: {:.5f} nats per token; the same likeliest token for {:.2f} %\n",
                          reference_path_, kl, 100.0 * same_top);
    }
    return WriteStdout(text);
  }

  PromptInput prompt_;
  ModelFlags model_;
  WindowMode mode_ = WindowMode::kStrided;
  std::optional<int64_t> stride_;
  std::optional<int64_t> max_tokens_;
  int64_t every_ = 1;
  int64_t series_step_ = 1000;
  bool json_ = false;
  std::string reference_path_;
  std::unique_ptr<Engine> reference_;
  std::vector<float> reference_logits_;
  double divergence_ = 0.0;  // in all
  int64_t same_top_ = 0;     // rows
};

}  // namespace

std::unique_ptr<Verb> MakePerplexityVerb() { return std::make_unique<PerplexityVerb>(); }

}  // namespace kvasir::apps
