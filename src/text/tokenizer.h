// Text to token ids and back, for every tokenizer format that kvasir reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/vocab.h"

namespace kvasir {

class GgufFile;

/// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

struct EncodeOptions {
  /// Let the post-processor (or the vocabulary's add_bos/add_eos) add its tokens, as Hugging Face's
  /// add_special_tokens=True does.
  bool add_special = true;
  /// Recognise special tokens written out in the text ("<|endoftext|>"). Ordinary added tokens are always recognised.
  bool parse_special = true;
  /// Sorted, disjoint ranges of text from outside (a user's message): a special token that overlaps one is plain text.
  std::span<const ByteRange> literal = {};
};

struct DecodeOptions {
  bool skip_special = true;
};

/// Text from ids, one at a time. Not thread-safe.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  /// Text that became certain with this token; may be empty. An unknown id is an error and changes nothing.
  virtual Result<std::string> Push(TokenId id) = 0;
  /// The rest; afterwards the stream begins anew.
  virtual Result<std::string> Finish() = 0;
};

/// A loaded tokenizer. Immutable after loading; all methods are const and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of `text`. Invalid UTF-8 is read as U+FFFD, as Hugging Face does after bytes.decode(errors="replace").
  /// Time is near-linear in the text. Fails only when the vocabulary cannot express the text (no unk, no bytes).
  virtual Result<std::vector<TokenId>> Encode(std::string_view text, const EncodeOptions& options = {}) const = 0;

  /// The text of `ids`, as Hugging Face's decode gives it: bytes that are not UTF-8 become U+FFFD. Unknown ids are an
  /// error.
  virtual Result<std::string> Decode(std::span<const TokenId> ids, const DecodeOptions& options = {}) const = 0;

  /// Decoding token by token. REQUIRES: the tokenizer outlives the stream.
  virtual std::unique_ptr<TokenStream> NewStream(const DecodeOptions& options = {}) const = 0;

  /// The bytes that the token adds in the middle of a text, which may be a part of a character: "Ġthe" and "▁the" give
  /// " the", "<0x0A>" a line feed. Special tokens and ids without a piece have none. Where a decoder's rules reach over
  /// several tokens (clean-up of spaces, CTC), this is what they make of the token by itself. An error only where the
  /// decoder cannot read the piece.
  virtual Result<std::string> TokenBytes(TokenId id) const = 0;

  /// The piece as it stands in the vocabulary ("Ġthe", "▁the", "<0x0A>"); empty for ids without one.
  virtual std::string_view IdToPiece(TokenId id) const = 0;
  virtual std::optional<TokenId> PieceToId(std::string_view piece) const = 0;
  virtual bool IsSpecial(TokenId id) const = 0;

  /// Sizes and special ids. `size` counts added tokens; the model's own vocabulary may be padded beyond it.
  virtual const VocabInfo& vocab() const = 0;

  /// The chat template that came with the tokenizer (tokenizer_config.json, chat_template.jinja, GGUF), or empty.
  virtual std::string_view chat_template() const = 0;

  /// What kind it is, for inspect: "byte-level BPE", "SentencePiece BPE", "Unigram", "WordPiece", "tiktoken".
  virtual std::string_view kind() const = 0;
};

/// Reads the tokenizer of a Hugging Face folder: tokenizer.json, else vocab.json + merges.txt, else tokenizer.model
/// (SentencePiece or tiktoken ranks), with tokenizer_config.json and special_tokens_map.json beside them.
Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder);

/// Reads one tokenizer file by its content: tokenizer.json, tokenizer.model (SentencePiece or tiktoken ranks).
Result<std::unique_ptr<Tokenizer>> LoadTokenizerFile(const std::filesystem::path& file);

/// The same from bytes in memory. `what` begins messages.
Result<std::unique_ptr<Tokenizer>> LoadTokenizerFromBytes(std::string_view bytes, std::string_view what);

/// Builds the tokenizer from the metadata of a GGUF file (tokenizer.ggml.*). The file may be closed afterwards.
/// `pre` says how a byte-level vocabulary divides text, instead of tokenizer.ggml.pre. A file that names a division
/// that is not known is an error, since a wrong one changes ids without a word; one that names none (as old files) gets
/// "default", as in llama.cpp, and a warning.
Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const GgufFile& file, std::string_view pre = {});

/// Turns ids into text piece by piece; what it returns never splits a UTF-8 character and concatenates to exactly
/// what Decode would give for all ids at once (but for a tail that Flush completes). Not thread-safe.
class StreamDecoder {
 public:
  /// REQUIRES: tokenizer outlives the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer, DecodeOptions options = {});

  /// Text that became certain with this token; may be empty.
  Result<std::string> Push(TokenId id);
  /// The rest; incomplete bytes become U+FFFD. Afterwards the decoder begins anew.
  std::string Flush();

 private:
  std::unique_ptr<TokenStream> stream_;
};

}  // namespace kvasir
