#include "text/tokenizer_config.h"
#include "text/unicode.h"

#include <algorithm>
#include <charconv>

namespace kvasir {
namespace {

constexpr size_t kMaxTemplateBytes = 4u << 20;
constexpr std::string_view kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};

Result<AddedToken> ParseToken(const json::value& spec, bool special, const std::string& what) {
  AddedToken token;
  token.special = special;
  if (spec.is_string()) {
    token.content = std::string(spec.get_string());
    token.normalized = !special;
    return token;
  }
  if (!spec.is_object()) return InvalidData("{}: a token must be a string or an object", what);
  const JsonReader reader(spec.get_object(), what);
  ASSIGN_OR_RETURN(token.content, reader.String({"content"}));
  ASSIGN_OR_RETURN(token.single_word, reader.Bool({"single_word"}, false));
  ASSIGN_OR_RETURN(token.lstrip, reader.Bool({"lstrip"}, false));
  ASSIGN_OR_RETURN(token.rstrip, reader.Bool({"rstrip"}, false));
  ASSIGN_OR_RETURN(const bool flag, reader.Bool({"special"}, special));
  token.special = special || flag;
  ASSIGN_OR_RETURN(token.normalized, reader.Bool({"normalized"}, !token.special));
  return token;
}

Status ReadNamed(const json::object& object, const std::string& what, TokenizerConfig* config) {
  for (const std::string_view name : kNames) {
    const json::value* spec = object.if_contains(name);
    if (spec == nullptr) continue;
    auto& slot = config->named[std::string(name)];
    slot.reset();
    if (spec->is_null()) continue;
    ASSIGN_OR_RETURN(slot, ParseToken(*spec, true, what));
  }
  const json::value* more = object.if_contains("additional_special_tokens");
  if (more == nullptr || !more->is_array()) return OkStatus();
  config->additional.clear();
  for (const json::value& item : more->get_array()) {
    ASSIGN_OR_RETURN(AddedToken token, ParseToken(item, true, what));
    config->additional.push_back(std::move(token));
  }
  return OkStatus();
}

Result<std::string> ReadChatTemplate(const json::value* spec, const std::string& what) {
  if (spec == nullptr || spec->is_null()) return std::string();
  if (spec->is_string()) return std::string(spec->get_string());
  if (!spec->is_array()) return InvalidData("{}: \"chat_template\" must be a string or a list", what);
  // Named templates: the one called "default", else the first.
  std::string chosen;
  bool first = true;
  for (const json::value& item : spec->get_array()) {
    if (!item.is_object()) return InvalidData("{}: a named chat template must be an object", what);
    const JsonReader reader(item.get_object(), what);
    ASSIGN_OR_RETURN(const std::string name, reader.String({"name"}));
    ASSIGN_OR_RETURN(const std::string text, reader.String({"template"}));
    if (first || name == "default") chosen = text;
    first = false;
  }
  return chosen;
}

Result<std::optional<bool>> OptionalBool(const JsonReader& reader, std::string_view name) {
  if (!reader.Has({name})) return std::optional<bool>();
  ASSIGN_OR_RETURN(const bool value, reader.Bool({name}));
  return std::optional<bool>(value);
}

Status ReadAddedDecoder(const json::object& tokens, const std::string& what, TokenizerConfig* config) {
  for (const auto& [key, spec] : tokens) {
    int64_t id = -1;
    const std::string_view digits = key;
    const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), id);
    if (error != std::errc() || rest != digits.data() + digits.size() || id < 0 || id > kMaxTokenId) {
      return InvalidData("{}: added_tokens_decoder: \"{}\" is not a token id", what, Excerpt(digits));
    }
    ASSIGN_OR_RETURN(AddedToken token, ParseToken(spec, false, what));
    config->added.emplace_back(id, std::move(token));
  }
  return OkStatus();
}

Status ReadMainFile(const std::filesystem::path& file, TokenizerConfig* config, bool* has_decoder) {
  ASSIGN_OR_RETURN(const json::value root, ParseJsonFile(file));
  const std::string what = file.string();
  if (!root.is_object()) return InvalidData("{}: not an object", what);
  const JsonReader reader(root.get_object(), what);
  config->present = true;
  ASSIGN_OR_RETURN(config->tokenizer_class, reader.String({"tokenizer_class"}, ""));
  ASSIGN_OR_RETURN(config->add_bos, OptionalBool(reader, "add_bos_token"));
  ASSIGN_OR_RETURN(config->add_eos, OptionalBool(reader, "add_eos_token"));
  ASSIGN_OR_RETURN(config->add_prefix_space, OptionalBool(reader, "add_prefix_space"));
  ASSIGN_OR_RETURN(config->legacy, OptionalBool(reader, "legacy"));
  ASSIGN_OR_RETURN(config->clean_up_spaces, reader.Bool({"clean_up_tokenization_spaces"}, false));
  ASSIGN_OR_RETURN(config->chat_template, ReadChatTemplate(reader.Find({"chat_template"}), what));
  RETURN_IF_ERROR(ReadNamed(root.get_object(), what, config));
  ASSIGN_OR_RETURN(const json::object* decoder, reader.Object({"added_tokens_decoder"}));
  *has_decoder = decoder != nullptr;
  return decoder == nullptr ? OkStatus() : ReadAddedDecoder(*decoder, what, config);
}

/// Files of the time before added_tokens_decoder.
Status ReadOldFiles(const std::filesystem::path& folder, TokenizerConfig* config) {
  std::error_code ignored;
  if (const auto file = folder / "special_tokens_map.json"; std::filesystem::exists(file, ignored)) {
    ASSIGN_OR_RETURN(const json::value root, ParseJsonFile(file));
    if (!root.is_object()) return InvalidData("{}: not an object", file.string());
    RETURN_IF_ERROR(ReadNamed(root.get_object(), file.string(), config));
  }
  const auto file = folder / "added_tokens.json";
  if (!std::filesystem::exists(file, ignored)) return OkStatus();
  ASSIGN_OR_RETURN(const json::value root, ParseJsonFile(file));
  if (!root.is_object()) return InvalidData("{}: not an object", file.string());
  for (const auto& [content, id] : root.get_object()) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > kMaxTokenId) {
      return InvalidData("{}: \"{}\" has no valid id", file.string(), Excerpt(content));
    }
    AddedToken token;
    token.content = std::string(content);
    token.special = std::any_of(config->named.begin(), config->named.end(), [&](const auto& entry) {
      return entry.second && entry.second->content == token.content;
    });
    token.normalized = !token.special;
    config->added.emplace_back(id.get_int64(), std::move(token));
  }
  return OkStatus();
}

/// The token of a name: the config's, or the class's default where the vocabulary has it.
std::optional<TokenId> Resolve(const TokenizerConfig& config, std::string_view name, std::string_view fallback,
                               const TokenizerParts& parts) {
  std::string content(fallback);
  if (const auto found = config.named.find(std::string(name)); found != config.named.end()) {
    if (!found->second) return std::nullopt;
    content = found->second->content;
  }
  if (content.empty()) return std::nullopt;
  if (const auto id = parts.added.Find(content)) return id;
  const TokenId id = parts.model->pieces().Find(content);
  return id < 0 ? std::nullopt : std::optional<TokenId>(id);
}

Status AddTokens(const TokenizerConfig& config, const TokenizerClass& traits, TokenizerParts* parts) {
  const PieceTable& pieces = parts->model->pieces();
  for (const auto& [id, token] : config.added) RETURN_IF_ERROR(parts->added.Add(token, pieces));
  for (const std::string_view name : kNames) {
    const auto found = config.named.find(std::string(name));
    if (found != config.named.end() && found->second) RETURN_IF_ERROR(parts->added.Add(*found->second, pieces));
  }
  for (const AddedToken& token : config.additional) RETURN_IF_ERROR(parts->added.Add(token, pieces));
  const std::pair<std::string_view, std::string_view> defaults[] = {
      {"bos_token", traits.bos}, {"eos_token", traits.eos}, {"unk_token", traits.unk}, {"pad_token", traits.pad}};
  for (const auto& [name, content] : defaults) {
    if (content.empty() || config.named.contains(std::string(name))) continue;
    AddedToken token;
    token.content = std::string(content);
    token.normalized = false;
    token.special = true;
    RETURN_IF_ERROR(parts->added.Add(std::move(token), pieces));
  }
  return OkStatus();
}

}  // namespace

Result<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& folder) {
  TokenizerConfig config;
  std::error_code ignored;
  bool has_decoder = false;
  if (const auto file = folder / "tokenizer_config.json"; std::filesystem::exists(file, ignored)) {
    RETURN_IF_ERROR(ReadMainFile(file, &config, &has_decoder));
  }
  if (!has_decoder) RETURN_IF_ERROR(ReadOldFiles(folder, &config));
  std::stable_sort(config.added.begin(), config.added.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  if (const auto file = folder / "chat_template.jinja"; std::filesystem::exists(file, ignored)) {
    ASSIGN_OR_RETURN(config.chat_template, ReadFile(file, kMaxTemplateBytes));
  }
  return config;
}

Status ApplyTokenizerConfig(const TokenizerConfig& config, bool converted, TokenizerParts* parts) {
  const TokenizerClass& traits = FindTokenizerClass(config.tokenizer_class);
  RETURN_IF_ERROR(AddTokens(config, traits, parts));
  if (const auto id = Resolve(config, "bos_token", traits.bos, *parts)) parts->vocab.bos = id;
  if (const auto id = Resolve(config, "eos_token", traits.eos, *parts)) parts->vocab.eos = {*id};
  if (const auto id = Resolve(config, "pad_token", traits.pad, *parts)) parts->vocab.pad = id;
  if (const auto id = Resolve(config, "unk_token", traits.unk, *parts)) parts->vocab.unk = id;
  if (traits.bos_from_flags || (converted && traits.bos_flag_on_conversion)) {
    const bool bos = config.add_bos.value_or(traits.add_bos);
    const bool eos = config.add_eos.value_or(false);
    parts->post_template.clear();
    if (bos && parts->vocab.bos) parts->post_template.push_back(*parts->vocab.bos);
    parts->post_template.push_back(kTemplateText);
    if (eos && !parts->vocab.eos.empty()) parts->post_template.push_back(parts->vocab.eos.front());
  }
  if (config.clean_up_spaces) parts->decoder.CleanUpSpaces();
  parts->chat_template = config.chat_template;
  return OkStatus();
}

}  // namespace kvasir
