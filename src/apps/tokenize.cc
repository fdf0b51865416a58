// kvasir tokenize: text to ids and pieces, and back.
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <charconv>

#include "apps/model_flags.h"
#include "apps/prompt_input.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "apps/token_list.h"
#include "apps/verb.h"
#include "base/utf8.h"

namespace kvasir::apps {
namespace {

class TokenizeVerb final : public Verb {
 public:
  std::string_view name() const override { return "tokenize"; }
  std::string_view summary() const override { return "Show the ids and pieces of a text, or the text of ids."; }
  std::string_view description() const override {
    return "usage: kvasir tokenize [-m MODEL] [-p TEXT | -f FILE] [flags]\n"
           "       kvasir tokenize [-m MODEL] --decode 1,2,3\n\n"
           "MODEL may also be a tokenizer.json or tokenizer.model by itself. Weights are not read.\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Input");
    model_.AddModel(flags);
    prompt_.Add(flags);
    flags.Text("--decode", "IDS", &decode_, "Print the text of these ids (separated by commas or spaces).");
    flags.Group("Rules");
    model_.AddPreTokenizer(flags);
    flags.Switch("--add-special", &add_special_, "Let the tokenizer add its special tokens (such as BOS).",
                 "--no-special");
    flags.Switch("--parse-special", &parse_special_, "Read special tokens written in the text as such.",
                 "--no-parse-special");
    flags.Switch("--skip-special", &skip_special_, "With --decode: leave special tokens out.");
    flags.Group("Output");
    flags.Switch("--json", &json_, "Print {\"ids\", \"pieces\"}, or {\"text\"} with --decode.");
  }

  Status Run() override {
    if (decode_ && (prompt_.text || prompt_.file)) {
      return InvalidArgument("--decode turns ids into text; it takes neither --prompt nor --file");
    }
    ASSIGN_OR_RETURN(const std::filesystem::path path, FindModel(model_.model));
    ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, LoadModelTokenizer(path, model_.pre_tokenizer));
    if (decode_) return Decode(*tokenizer);
    ASSIGN_OR_RETURN(const std::string text, prompt_.Read(false));
    ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                     tokenizer->Encode(text, {.add_special = add_special_, .parse_special = parse_special_}));
    return json_ ? PrintJson(*tokenizer, ids) : PrintTable(*tokenizer, ids);
  }

 private:
  Status Decode(const Tokenizer& tokenizer) const {
    ASSIGN_OR_RETURN(const std::vector<TokenId> ids, ParseTokenList(*decode_, "--decode"));
    ASSIGN_OR_RETURN(const std::string text, tokenizer.Decode(ids, {.skip_special = skip_special_}));
    if (json_) return WriteStdout(JsonLine({{"text", ReplaceInvalidUtf8(text)}}));
    RETURN_IF_ERROR(WriteText(text));
    return StdoutIsTerminal() ? WriteStdout("\n") : OkStatus();
  }

  static Status PrintJson(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
    boost::json::array pieces;
    for (TokenId id : ids) pieces.emplace_back(ReplaceInvalidUtf8(tokenizer.IdToPiece(id)));
    return WriteStdout(JsonLine({{"ids", boost::json::array(ids.begin(), ids.end())}, {"pieces", std::move(pieces)}}));
  }

  static Status PrintTable(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
    std::string out;
    for (TokenId id : ids) {
      out += fmt::format("{:>8}  {}{}\n", id, tokenizer.IdToPiece(id), tokenizer.IsSpecial(id) ? "  (special)" : "");
      if (out.size() > 65536) {
        RETURN_IF_ERROR(WriteText(out));
        out.clear();
      }
    }
    return WriteText(out);
  }

  ModelFlags model_;
  PromptInput prompt_;
  std::optional<std::string> decode_;
  bool add_special_ = true;
  bool parse_special_ = true;
  bool skip_special_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeTokenizeVerb() { return std::make_unique<TokenizeVerb>(); }

}  // namespace kvasir::apps
