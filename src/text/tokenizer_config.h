// tokenizer_config.json, special_tokens_map.json, added_tokens.json and chat_template.jinja beside a tokenizer.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/format_names.h"
#include "text/pipeline.h"

namespace kvasir {

/// What the files beside a tokenizer say. Absent files leave the defaults.
struct TokenizerConfig {
  bool present = false;         // there is a tokenizer_config.json
  std::string tokenizer_class;  // as written
  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
  std::optional<bool> add_prefix_space;
  std::optional<bool> legacy;
  bool clean_up_spaces = false;
  /// "bos_token" … to the token; present but empty: the file says null.
  std::map<std::string, std::optional<AddedToken>> named;
  std::vector<AddedToken> additional;
  std::vector<std::pair<int64_t, AddedToken>> added;  // sorted by id
  std::string chat_template;
};

/// Reads the files of a folder.
Result<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& folder);

/// Adds the config's tokens, names the special ones, sets the post-processor where the class does and the decoder's
/// clean-up. `converted`: there was no tokenizer.json, so that the flags say it all.
Status ApplyTokenizerConfig(const TokenizerConfig& config, bool converted, TokenizerParts* parts);

}  // namespace kvasir
