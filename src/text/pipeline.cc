#include "text/pipeline.h"

#include <algorithm>

#include "base/utf8.h"

namespace kvasir {
namespace {

constexpr size_t kMaxText = size_t{1} << 30;

/// Valid UTF-8 of a text, and ranges over it.
struct CleanText {
  std::string owned;
  std::string_view text;
  std::vector<ByteRange> literal;
};

Status CheckRanges(std::string_view text, std::span<const ByteRange> ranges) {
  size_t end = 0;
  for (const ByteRange& range : ranges) {
    if (range.begin < end || range.end < range.begin || range.end > text.size()) {
      return InvalidArgument("literal ranges must be sorted, disjoint and inside the text of {} bytes", text.size());
    }
    end = range.end;
  }
  return OkStatus();
}

/// Replaces invalid bytes and moves the ranges' ends along.
CleanText Clean(std::string_view text, std::span<const ByteRange> literal) {
  CleanText clean;
  clean.literal.assign(literal.begin(), literal.end());
  clean.text = text;
  if (IsValidUtf8(text)) return clean;
  size_t next = 0;  // boundaries before this one (2 per range) are moved
  const auto boundary = [&](size_t index) -> size_t& {
    ByteRange& range = clean.literal[index / 2];
    return index % 2 == 0 ? range.begin : range.end;
  };
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = DecodeUtf8(text, i);
    // A boundary inside an invalid unit widens the literal range.
    while (next < 2 * clean.literal.size() && boundary(next) < i + unit.length) {
      const bool inside_end = next % 2 == 1 && boundary(next) > i;
      boundary(next) = clean.owned.size() + (inside_end ? (unit.valid ? unit.length : 3u) : 0u);
      ++next;
    }
    AppendUtf8(clean.owned, unit.code_point);
    i += unit.length;
  }
  for (; next < 2 * clean.literal.size(); ++next) boundary(next) = clean.owned.size();
  clean.text = clean.owned;
  return clean;
}

bool Overlaps(const std::vector<ByteRange>& ranges, size_t begin, size_t end) {
  const auto after =
      std::partition_point(ranges.begin(), ranges.end(), [&](const ByteRange& range) { return range.end <= begin; });
  return after != ranges.end() && after->begin < end;
}

class PipelineTokenizer;

class PipelineStream final : public TokenStream {
 public:
  PipelineStream(const PipelineTokenizer* tokenizer, DecodeOptions options);
  Result<std::string> Push(TokenId id) override;
  Result<std::string> Finish() override;

 private:
  Status Run(size_t stage, std::string_view token, std::string* out);
  const PipelineTokenizer* tokenizer_;
  DecodeOptions options_;
  std::vector<DecodeStagePtr> stages_;
  std::vector<std::vector<std::string>> buffers_;  // by stage
};

/// Everything one Encode call writes to.
struct Scratch {
  EncodeScratch model;
  PieceList pieces;
  std::vector<TextSegment> segments;
  std::vector<TextSegment> inner;
};

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
    needs_start_ = parts_.pre_tokenizer != nullptr && parts_.pre_tokenizer->needs_start();
  }

  Result<std::vector<TokenId>> Encode(std::string_view text, const EncodeOptions& options) const override {
    if (text.size() > kMaxText) return ResourceExhausted("a text of {} bytes; at most 1 GiB is read", text.size());
    RETURN_IF_ERROR(CheckRanges(text, options.literal));
    const CleanText clean = Clean(text, options.literal);
    std::unique_ptr<Scratch> scratch = TakeScratch();
    std::vector<TokenId> ids;
    const Status status = EncodeText(clean, options, *scratch, &ids);
    ReturnScratch(std::move(scratch));
    RETURN_IF_ERROR(status);
    if (!options.add_special || parts_.post_template == std::vector<TokenId>{kTemplateText}) return ids;
    std::vector<TokenId> all;
    all.reserve(ids.size() + parts_.post_template.size());
    for (const TokenId id : parts_.post_template) {
      if (id == kTemplateText) {
        all.insert(all.end(), ids.begin(), ids.end());
      } else {
        all.push_back(id);
      }
    }
    return all;
  }

  Result<std::string> Decode(std::span<const TokenId> ids, const DecodeOptions& options) const override {
    PipelineStream stream(this, options);
    std::string text;
    for (const TokenId id : ids) {
      ASSIGN_OR_RETURN(const std::string part, stream.Push(id));
      text += part;
    }
    ASSIGN_OR_RETURN(const std::string rest, stream.Finish());
    return text + rest;
  }

  std::unique_ptr<TokenStream> NewStream(const DecodeOptions& options) const override {
    return std::make_unique<PipelineStream>(this, options);
  }

  Result<std::string> TokenBytes(TokenId id) const override {
    if (!Knows(id) || IsSpecial(id)) return std::string();
    return parts_.decoder.Bytes(IdToPiece(id));
  }

  std::string_view IdToPiece(TokenId id) const override {
    if (const AddedToken* token = parts_.added.Get(id)) return token->content;
    return parts_.model->pieces().Piece(id);
  }
  std::optional<TokenId> PieceToId(std::string_view piece) const override {
    if (const auto id = parts_.added.Find(piece)) return id;
    const TokenId id = parts_.model->pieces().Find(piece);
    return id < 0 ? std::nullopt : std::optional<TokenId>(id);
  }
  bool Knows(TokenId id) const { return parts_.added.Get(id) != nullptr || parts_.model->pieces().Has(id); }
  bool IsSpecial(TokenId id) const override { return parts_.added.IsSpecial(id); }
  const VocabInfo& vocab() const override { return parts_.vocab; }
  std::string_view chat_template() const override { return parts_.chat_template; }
  std::string_view kind() const override { return parts_.kind; }
  const DecoderPlan& decoder() const { return parts_.decoder; }

 private:
  std::unique_ptr<Scratch> TakeScratch() const {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto scratch = std::move(idle_.back());
        idle_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<Scratch>();
  }

  void ReturnScratch(std::unique_ptr<Scratch> scratch) const {
    // One huge text must not keep its memory for ever.
    if (scratch->model.symbols.capacity() > (1u << 20)) {
      scratch->model.symbols = {};
      scratch->model.heap = {};
    }
    if (scratch->model.path.capacity() > (1u << 20)) scratch->model.path = {};
    scratch->pieces = {};
    const std::lock_guard lock(mutex_);
    if (idle_.size() < 64) idle_.push_back(std::move(scratch));
  }

  Status EncodeText(const CleanText& clean, const EncodeOptions& options, Scratch& scratch,
                    std::vector<TokenId>* ids) const {
    const auto blocked = [&](size_t begin, size_t end) { return Overlaps(clean.literal, begin, end); };
    scratch.segments.clear();
    parts_.added.Split(clean.text, false, options.parse_special, blocked, &scratch.segments);
    for (const TextSegment& segment : scratch.segments) {
      if (segment.id >= 0) {
        ids->push_back(segment.id);
        continue;
      }
      RETURN_IF_ERROR(EncodeSegment(clean, segment, options, scratch, ids));
    }
    return OkStatus();
  }

  /// Plain text between added tokens: normalise, look for added tokens again, divide, encode.
  Status EncodeSegment(const CleanText& clean, const TextSegment& segment, const EncodeOptions& options,
                       Scratch& scratch, std::vector<TokenId>* ids) const {
    const std::string_view raw = clean.text.substr(segment.begin, segment.end - segment.begin);
    if (parts_.normalizer == nullptr && !parts_.added.any_normalized()) {
      return EncodePlain(raw, segment.begin == 0, scratch, ids);
    }
    const bool tracked = parts_.normalizer != nullptr &&
                         (needs_start_ || (!clean.literal.empty() && parts_.added.any_normalized_special()));
    TextBuffer buffer(parts_.normalizer == nullptr ? std::string_view() : raw, tracked,
                      static_cast<uint32_t>(segment.begin));
    std::string_view text = raw;
    if (parts_.normalizer != nullptr) {
      RETURN_IF_ERROR(parts_.normalizer->Apply(buffer));
      text = buffer.text();
      if (text.size() > UINT32_MAX) return ResourceExhausted("the normalised text exceeds 4 GiB");
    }
    const auto source = [&](size_t i) { return tracked ? buffer.origin(i) : segment.begin + i; };
    const auto blocked = [&](size_t begin, size_t end) {
      if (clean.literal.empty()) return false;
      return Overlaps(clean.literal, source(begin), source(end - 1) + 1);
    };
    scratch.inner.clear();
    parts_.added.Split(text, true, options.parse_special, blocked, &scratch.inner);
    for (const TextSegment& part : scratch.inner) {
      if (part.id >= 0) {
        ids->push_back(part.id);
      } else {
        RETURN_IF_ERROR(
            EncodePlain(text.substr(part.begin, part.end - part.begin), source(part.begin) == 0, scratch, ids));
      }
    }
    return OkStatus();
  }

  Status EncodePlain(std::string_view text, bool at_start, Scratch& scratch, std::vector<TokenId>* ids) const {
    PieceList& list = scratch.pieces;
    list.Reset(text, at_start);
    if (parts_.pre_tokenizer != nullptr) RETURN_IF_ERROR(parts_.pre_tokenizer->Apply(list));
    for (const Piece& piece : list.pieces()) {
      RETURN_IF_ERROR(parts_.model->Encode(list.view(piece), scratch.model, ids));
    }
    return OkStatus();
  }

  TokenizerParts parts_;
  bool needs_start_ = false;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;
};

PipelineStream::PipelineStream(const PipelineTokenizer* tokenizer, DecodeOptions options)
    : tokenizer_(tokenizer), options_(options), stages_(tokenizer->decoder().Start()), buffers_(stages_.size()) {}

/// Passes a string through the stages from `stage` on.
Status PipelineStream::Run(size_t stage, std::string_view token, std::string* out) {
  if (stage == stages_.size()) {
    *out += token;
    return OkStatus();
  }
  std::vector<std::string>& made = buffers_[stage];
  made.clear();
  RETURN_IF_ERROR(stages_[stage]->Push(token, &made));
  for (const std::string& next : made) RETURN_IF_ERROR(Run(stage + 1, next, out));
  return OkStatus();
}

Result<std::string> PipelineStream::Push(TokenId id) {
  if (!tokenizer_->Knows(id)) {
    return InvalidArgument("token id {} is not in the vocabulary of {} tokens", id, tokenizer_->vocab().size);
  }
  std::string text;
  if (options_.skip_special && tokenizer_->IsSpecial(id)) return text;
  RETURN_IF_ERROR(Run(0, tokenizer_->IdToPiece(id), &text));
  return text;
}

Result<std::string> PipelineStream::Finish() {
  std::string text;
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    std::vector<std::string> made;
    RETURN_IF_ERROR(stages_[stage]->Finish(&made));
    for (const std::string& next : made) RETURN_IF_ERROR(Run(stage + 1, next, &text));
  }
  stages_ = tokenizer_->decoder().Start();
  return text;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts) {
  RETURN_IF_ERROR(parts.added.Finish(parts.normalizer.get()));
  const PieceTable& pieces = parts.model->pieces();
  parts.vocab.size = std::max(pieces.limit(), parts.added.limit());
  const auto known = [&](TokenId id) { return pieces.Has(id) || parts.added.Get(id) != nullptr; };
  for (const TokenId id : parts.post_template) {
    if (id != kTemplateText && !known(id)) {
      return InvalidData("the post-processor adds token id {}, which the vocabulary does not have", id);
    }
  }
  for (const auto& id : {parts.vocab.bos, parts.vocab.pad, parts.vocab.unk}) {
    if (id && !known(*id)) return InvalidData("special token id {} is not in the vocabulary", *id);
  }
  for (const TokenId id : parts.vocab.eos) {
    if (!known(id)) return InvalidData("end-of-text token id {} is not in the vocabulary", id);
  }
  return std::unique_ptr<Tokenizer>(std::make_unique<PipelineTokenizer>(std::move(parts)));
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, DecodeOptions options)
    : stream_(tokenizer.NewStream(options)) {}

Result<std::string> StreamDecoder::Push(TokenId id) { return stream_->Push(id); }

std::string StreamDecoder::Flush() {
  auto rest = stream_->Finish();
  return rest.ok() ? *std::move(rest) : std::string();
}

}  // namespace kvasir
