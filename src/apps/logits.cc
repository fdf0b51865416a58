// kvasir logits: the model's raw scores of the next token, as JSON, .npy or a table of the likeliest.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "apps/model_flags.h"
#include "apps/npy_writer.h"
#include "apps/prompt_input.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "apps/token_list.h"
#include "apps/verb.h"
#include "decode/softmax.h"

namespace kvasir::apps {
namespace {

class LogitsVerb final : public Verb {
 public:
  std::string_view name() const override { return "logits"; }
  std::string_view summary() const override { return "Print the logits after a text or after token ids."; }
  std::string_view description() const override {
    return "usage: kvasir logits [-m MODEL] (--tokens IDS | -p TEXT | -f FILE) [flags]\n\n"
           "By default the likeliest next tokens are listed; --json and --npy give all logits as fp32.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Input");
    flags.Text("--tokens", "IDS", &tokens_, "Token ids, separated by commas or spaces.");
    prompt_.Add(flags);
    flags.Group("Output");
    flags.Switch("--all", &all_, "Logits of every position, not only the last.");
    flags.Switch("--json", &json_, "Print {\"shape\": [rows, vocabulary], \"data\": [row after row]}.");
    flags.Text("--npy", "FILE", &npy_, "Write a NumPy array [rows, vocabulary] of fp32 to this file.");
    flags.Int("--top", "K", &top_, 1, 100000, "Likeliest tokens to list for each position.");
    model_.AddAll(flags);
    model_.AddVerbose(flags);
  }

  Status Run() override {
    if (tokens_ && (prompt_.text || prompt_.file)) {
      return InvalidArgument("--tokens, --prompt and --file: give one of them");
    }
    if (json_ && npy_) return InvalidArgument("--json and --npy: give one of them");
    EngineOptions options = model_.Options();
    options.load_tokenizer = !tokens_ || (!json_ && !npy_);
    std::vector<TokenId> ids;
    if (tokens_) {
      ASSIGN_OR_RETURN(ids, ParseTokenList(*tokens_, "--tokens"));
    }
    std::string text;
    if (!tokens_) {
      ASSIGN_OR_RETURN(text, prompt_.Read(false));
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, LoadEngine(model_, options, json_));
    if (!tokens_) {
      if (!engine->tokenizer()) return NotFound("this model has no tokenizer; give ids with --tokens");
      ASSIGN_OR_RETURN(ids, engine->tokenizer()->Encode(text));
    }
    if (json_) return PrintJson(*engine, ids);
    if (npy_) return WriteNpy(*engine, ids);
    return PrintTop(*engine, ids);
  }

 private:
  // The number of rows wanted, and the first of them. Without ids the engine says so.
  int64_t Rows(const std::vector<TokenId>& ids) const { return all_ ? static_cast<int64_t>(ids.size()) : 1; }
  int64_t FirstRow(const std::vector<TokenId>& ids) const { return static_cast<int64_t>(ids.size()) - Rows(ids); }

  // Written as it comes: all logits of a long text may be more than memory holds.
  Status PrintJson(Engine& engine, const std::vector<TokenId>& ids) const {
    const int64_t vocab = engine.model().spec().vocab_size;
    std::string out = fmt::format("{{\"shape\":[{},{}],\"data\":[", Rows(ids), vocab);
    bool first = true;
    auto append = [&](int64_t, MatView<const float> logits) -> Status {
      for (int64_t r = 0; r < logits.rows; ++r) {
        for (int64_t v = 0; v < logits.cols; ++v) {
          if (!first) out += ',';
          first = false;
          AppendJsonNumber(static_cast<double>(logits.row(r)[v]), out);
        }
        if (out.size() >= 65536) {
          RETURN_IF_ERROR(WriteStdout(out));
          out.clear();
        }
      }
      return OkStatus();
    };
    Status done = engine.ForEachLogits(ids, FirstRow(ids), append);
    if (!done.ok()) return done;
    return WriteStdout(out + "]}\n");
  }

  Status WriteNpy(Engine& engine, const std::vector<TokenId>& ids) const {
    ASSIGN_OR_RETURN(NpyWriter writer, NpyWriter::Create(*npy_, Rows(ids), engine.model().spec().vocab_size));
    auto append = [&](int64_t, MatView<const float> logits) -> Status {
      for (int64_t r = 0; r < logits.rows; ++r) {
        RETURN_IF_ERROR(writer.Write({logits.row(r), static_cast<size_t>(logits.cols)}));
      }
      return OkStatus();
    };
    Status done = engine.ForEachLogits(ids, FirstRow(ids), append);
    if (!done.ok()) return done;
    return writer.Finish();
  }

  Status PrintTop(Engine& engine, const std::vector<TokenId>& ids) const {
    return engine.ForEachLogits(ids, FirstRow(ids), [&](int64_t first_row, MatView<const float> logits) -> Status {
      for (int64_t r = 0; r < logits.rows; ++r) {
        const std::span<const float> row(logits.row(r), static_cast<size_t>(logits.cols));
        const int64_t position = first_row + r;
        RETURN_IF_ERROR(PrintRow(engine.tokenizer(), position, ids[static_cast<size_t>(position)], row));
      }
      return OkStatus();
    });
  }

  Status PrintRow(const Tokenizer* tokenizer, int64_t position, TokenId token, std::span<const float> row) const {
    const RowSummary summary = Summarize(row);
    if (summary.has_nan) return InvalidData("position {}: the logits hold NaN", position);
    std::vector<TokenId> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    const auto count = static_cast<std::ptrdiff_t>(std::min<size_t>(static_cast<size_t>(top_), row.size()));
    std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](TokenId a, TokenId b) {
      const float x = row[static_cast<size_t>(a)];
      const float y = row[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    auto piece = [&](TokenId id) { return tokenizer ? std::string(tokenizer->IdToPiece(id)) : std::string(); };
    std::string out = fmt::format("after position {} (token {} {}):\n", position, token, piece(token));
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const TokenId id = order[static_cast<size_t>(i)];
      const float logit = row[static_cast<size_t>(id)];
      out += fmt::format("{:>10}  logit {:>11.5f}  p {:>8.6f}  {}\n", id, logit, std::exp(summary.LogProb(logit)),
                         piece(id));
    }
    return WriteText(out);
  }

  ModelFlags model_;
  PromptInput prompt_;
  std::optional<std::string> tokens_;
  std::optional<std::string> npy_;
  int32_t top_ = 10;
  bool all_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeLogitsVerb() { return std::make_unique<LogitsVerb>(); }

}  // namespace kvasir::apps
