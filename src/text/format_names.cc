#include "text/format_names.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

namespace kvasir {
namespace {

// Contractions in any case, words with one leading mark, digits by three or singly, marks with line ends.
constexpr std::string_view kDigitsByThree =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSingleDigits =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words also divided where lower case turns to upper.
constexpr std::string_view kCasedWords =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kCasedSingleDigits =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kMarkedWords =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kCjkRuns = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
constexpr std::string_view kSpacedMarks =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
// Letters of the alphabets that have case.
constexpr std::string_view kCasedLetters =
    R"(\s?[)"
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1})"
    R"(\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5})"
    R"(\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77})"
    R"(\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D})"
    R"(\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE})"
    R"(\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC})"
    R"(\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E})"
    R"(\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D})"
    R"(\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF})"
    R"(\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F})"
    R"(\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
    R"(\x{1E900}-\x{1E943})"
    R"(]+)";

const ByteLevelRecipe& Recipe(std::string_view name) {
  static const std::map<std::string_view, ByteLevelRecipe> recipes = {
      {"default",
       {{R"([\p{P}\$\+<=>\^~\|]+)", kByteLevelPattern, R"(\p{N}+)", "[0-9][0-9][0-9]"}, false, false, false}},
      {"plain", {{kByteLevelPattern}, false, false, false}},
      {"single digits", {{R"(\p{N})", kByteLevelPattern}, false, false, false}},
      {"marks and threes", {{R"([\p{P}\$\+<=>\^~\|`]+)", kByteLevelPattern, "[0-9][0-9][0-9]"}, false, false, false}},
      {"by three", {{kDigitsByThree}, false, true, true}},
      {"by three, merged", {{kDigitsByThree}, false, false, false}},
      {"by one", {{kSingleDigits}, false, false, false}},
      {"by one, composed", {{kSingleDigits}, true, false, false}},
      {"by three, composed", {{kDigitsByThree}, true, false, false}},
      {"cased", {{kCasedWords}, false, true, false}},
      {"cased, single digits", {{kCasedSingleDigits}, false, true, true}},
      {"sentences", {{R"( ?[^(\s|.,!?…。，、।۔،)]+)"}, false, false, false}},
      {"sentences, single digits", {{R"( ?[^(\s|.,!?…。，、।۔،)]+)", R"(\p{N})"}, false, false, false}},
      {"cased letters",
       {{"[\r\n]", kCasedLetters, kSpacedMarks, R"(\s+$)", kCjkRuns, R"(\p{N}+)"}, false, false, false}},
      {"letters and marks", {{"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kCjkRuns, R"(\p{N})"}, false, false, false}},
      {"threes and marked words",
       {{R"(\p{N}{1,3})", R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)", kMarkedWords},
        false,
        false,
        false}},
      {"words and images",
       {{"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", R"(\p{N})",
         R"([\p{P}!-/:-@\[-`{-~])", kByteLevelPattern},
        false,
        false,
        false}},
  };
  return recipes.at(name);
}

struct PreTokenizerName {
  std::string_view name;
  std::string_view recipe;
};
constexpr PreTokenizerName kGgufPreTokenizers[] = {
    {"default", "default"},
    {"llama3", "by three"},
    {"llama-v3", "by three"},
    {"llama-bpe", "by three"},
    {"falcon3", "by three"},
    {"falcon-h1", "by three"},
    {"pixtral", "by three"},
    {"midm-2.0", "by three"},
    {"lfm2", "by three"},
    {"dbrx", "by three, merged"},
    {"smaug-bpe", "by three, merged"},
    {"chatglm-bpe", "by three, merged"},
    {"glm4", "by three, merged"},
    {"gpt-2", "plain"},
    {"phi-2", "plain"},
    {"jina-es", "plain"},
    {"jina-de", "plain"},
    {"gigachat", "plain"},
    {"jina-v2-es", "plain"},
    {"jina-v2-de", "plain"},
    {"a.x-4.0", "plain"},
    {"mellum", "plain"},
    {"roberta-bpe", "plain"},
    {"mpt", "plain"},
    {"olmo", "plain"},
    {"jais", "plain"},
    {"trillion", "plain"},
    {"starcoder", "single digits"},
    {"refact", "single digits"},
    {"command-r", "single digits"},
    {"smollm", "single digits"},
    {"codeshell", "single digits"},
    {"exaone", "single digits"},
    {"minerva-7b", "single digits"},
    {"falcon", "marks and threes"},
    {"qwen2", "by one, composed"},
    {"stablelm2", "by one, composed"},
    {"hunyuan", "by one"},
    {"megrez", "by one, composed"},
    {"deepseek-r1-qwen", "by one, composed"},
    {"bloom", "sentences"},
    {"poro-chat", "sentences"},
    {"gpt3-finnish", "sentences"},
    {"viking", "sentences, single digits"},
    {"deepseek-llm", "cased letters"},
    {"deepseek-coder", "letters and marks"},
    {"deepseek-v3", "threes and marked words"},
    {"hunyuan-dense", "threes and marked words"},
    {"tekken", "cased, single digits"},
    {"gpt-4o", "cased"},
    {"llama4", "cased"},
    {"chameleon", "words and images"},
};

}  // namespace

const ByteLevelRecipe* FindGgufPreTokenizer(std::string_view name) {
  const auto* found = std::find_if(std::begin(kGgufPreTokenizers), std::end(kGgufPreTokenizers),
                                   [&](const PreTokenizerName& entry) { return entry.name == name; });
  return found == std::end(kGgufPreTokenizers) ? nullptr : &Recipe(found->recipe);
}

std::string_view FindGgufPreTokenizerName(const std::vector<std::string>& patterns, bool nfc, bool ignore_merges) {
  for (const PreTokenizerName& entry : kGgufPreTokenizers) {
    const ByteLevelRecipe& recipe = Recipe(entry.recipe);
    const bool same = std::equal(patterns.begin(), patterns.end(), recipe.patterns.begin(), recipe.patterns.end());
    if (same && recipe.nfc == nfc && recipe.ignore_merges == ignore_merges) return entry.name;
  }
  return {};
}

std::string GgufPreTokenizerNames() {
  std::vector<std::string_view> names;
  for (const PreTokenizerName& entry : kGgufPreTokenizers) names.push_back(entry.name);
  std::sort(names.begin(), names.end());
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string_view GgufVocabularyName(GgufVocabulary kind) {
  switch (kind) {
    case GgufVocabulary::kSentencePiece: return "llama";
    case GgufVocabulary::kByteLevel: return "gpt2";
    case GgufVocabulary::kWordPiece: return "bert";
    case GgufVocabulary::kUnigram: return "t5";
    case GgufVocabulary::kUnknown: break;
  }
  return {};
}

GgufVocabulary FindGgufVocabulary(std::string_view name) {
  for (const GgufVocabulary kind : {GgufVocabulary::kSentencePiece, GgufVocabulary::kByteLevel,
                                    GgufVocabulary::kWordPiece, GgufVocabulary::kUnigram}) {
    if (GgufVocabularyName(kind) == name) return kind;
  }
  return GgufVocabulary::kUnknown;
}

const TokenizerClass& FindTokenizerClass(std::string_view name) {
  using Pieces = TokenizerClass::Pieces;
  static const std::map<std::string_view, TokenizerClass> classes = {
      {"LlamaTokenizer", {true, true, true, "<s>", "</s>", "<unk>", "", Pieces::kPrefixed, nullptr}},
      {"CodeLlamaTokenizer", {true, true, true, "<s>", "</s>", "<unk>", "", Pieces::kPrefixed, nullptr}},
      {"GemmaTokenizer", {true, true, true, "<bos>", "<eos>", "<unk>", "<pad>", Pieces::kPlainBpe, nullptr}},
      {"CohereTokenizer",
       {true, true, true, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>", "<PAD>", Pieces::kPrefixed, nullptr}},
      {"GPTNeoXTokenizer",
       {true, true, false, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "", Pieces::kPrefixed, &Recipe("plain")}},
      {"GPT2Tokenizer",
       {false, true, false, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "", Pieces::kPrefixed,
        &Recipe("plain")}},
      {"Qwen2Tokenizer",
       {false, false, false, "", "<|endoftext|>", "", "<|endoftext|>", Pieces::kPrefixed, &Recipe("by one, composed")}},
      {"BaichuanTokenizer", {true, true, false, "<s>", "</s>", "<unk>", "", Pieces::kRaw, nullptr}},
      {"", {false, true, true, "", "", "", "", Pieces::kPrefixed, &Recipe("plain")}},
  };
  if (name.ends_with("Fast")) name.remove_suffix(4);
  const auto found = classes.find(name);
  return found == classes.end() ? classes.at("") : found->second;
}

RankFile FindRankFile(int64_t ranks) {
  if (ranks == 128000) {
    RankFile file{ranks, &Recipe("by three"), {}, "<|begin_of_text|>", {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"}};
    file.special = {"<|begin_of_text|>",
                    "<|end_of_text|>",
                    "<|reserved_special_token_0|>",
                    "<|reserved_special_token_1|>",
                    "<|finetune_right_pad_id|>",
                    "<|reserved_special_token_2|>",
                    "<|start_header_id|>",
                    "<|end_header_id|>",
                    "<|eom_id|>",
                    "<|eot_id|>",
                    "<|python_tag|>"};
    for (int i = 3; file.special.size() < 256; ++i) {
      file.special.push_back(fmt::format("<|reserved_special_token_{}|>", i));
    }
    return file;
  }
  if (ranks == 151643) {
    RankFile file{ranks,
                  &Recipe("by one, composed"),
                  {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
                  "",
                  {"<|endoftext|>", "<|im_end|>"}};
    for (int i = 0; i < 205; ++i) file.special.push_back(fmt::format("<|extra_{}|>", i));
    return file;
  }
  if (ranks == 200000) {
    RankFile file{ranks, &Recipe("cased"), {}, "<|begin_of_text|>", {"<|end_of_text|>", "<|eot|>", "<|eom|>"}};
    file.special = {"<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
                    "<|header_start|>",  "<|header_end|>",  "<|eom|>",        "<|eot|>",        "<|step|>"};
    return file;
  }
  if (ranks == 199998) return {ranks, &Recipe("cased"), {}, "", {}};
  return {0, &Recipe("by three"), {}, "", {}};
}

bool EndsGeneration(std::string_view piece) {
  static constexpr std::string_view kEnds[] = {
      "<|eot_id|>", "<|im_end|>", "<|end|>",       "<end_of_turn>",         "<|endoftext|>",
      "<|eom_id|>", "<EOT>",      "<|eot|>",       "<|END_OF_TURN_TOKEN|>", "<|end_of_text|>",
      "<|eom|>",    "<|return|>", "<|endofturn|>", "<end_of_utterance>"};
  return std::find(std::begin(kEnds), std::end(kEnds), piece) != std::end(kEnds);
}

bool SpecialTokensTakeSpaces(std::string_view model_name) {
  std::string lower(model_name);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return lower.find("phi-3") != std::string::npos || lower.find("phi3") != std::string::npos;
}

Result<PreTokenizerPtr> MakeRecipePreTokenizer(const ByteLevelRecipe& recipe, bool add_prefix_space) {
  std::vector<PreTokenizerPtr> parts;
  if (add_prefix_space) parts.push_back(MakeByteLevel(true, false, true));  // only the space; bytes come last
  for (const std::string_view pattern : recipe.patterns) {
    ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
    parts.push_back(MakeSplit(std::move(regex), SplitBehavior::kIsolated));
  }
  parts.push_back(MakeByteLevel(false, false, true));
  return MakePreTokenizerSequence(std::move(parts));
}

}  // namespace kvasir
