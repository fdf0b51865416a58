// Decoders: from token strings back to text, token by token.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/json.h"
#include "text/pre_tokenizer.h"
#include "text/regex.h"

namespace kvasir {

/// One step of decoding over a stream of strings. Not thread-safe.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  /// Takes the next string and appends what became certain.
  virtual Status Push(std::string_view token, std::vector<std::string>* out) = 0;
  /// Appends the rest.
  virtual Status Finish(std::vector<std::string>* out) = 0;
  /// What becomes of a string in the middle of a stream if nothing around it counts; it may be a part of a character.
  virtual Result<std::string> Alone(std::string_view token) const { return std::string(token); }
};
using DecodeStagePtr = std::unique_ptr<DecodeStage>;

/// A recipe for decoding streams. Immutable once built; thread-safe.
class DecoderPlan {
 public:
  using Factory = std::function<DecodeStagePtr()>;

  /// What follows a plan without stages: strings are joined by spaces.
  DecoderPlan() = default;

  void ByteLevel();
  void ByteFallback();
  void Fuse();
  void ReplaceString(const std::string& pattern, const std::string& content);
  void ReplaceRegex(const Regex& pattern, const std::string& content);
  void Strip(char32_t content, size_t start, size_t stop);
  void Metaspace(const std::string& replacement, bool drop_first);
  void WordPiece(const std::string& prefix, bool cleanup);
  void BpeSuffix(const std::string& suffix);
  void Ctc(const std::string& pad, const std::string& delimiter, bool cleanup);
  /// Hugging Face's clean_up_tokenization_spaces, after everything else.
  void CleanUpSpaces();

  std::vector<DecodeStagePtr> Start() const;

  /// The bytes that a token adds in the middle of a text (Tokenizer::TokenBytes).
  Result<std::string> Bytes(std::string_view token) const;

 private:
  void Add(Factory factory);
  std::vector<Factory> stages_;
  bool fused_ = false;   // what comes now sees one string in chunks
  bool joined_ = false;  // the stage that joins by spaces is in place
};

/// The "decoder" object of tokenizer.json (null: joined by spaces).
Status ParseDecoder(const json::value& spec, const std::string& what, DecoderPlan* plan);

}  // namespace kvasir
