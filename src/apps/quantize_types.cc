#include "apps/quantize_types.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace kvasir::apps {
namespace {

/// In which layers a mixture's rule holds.
enum class Layers { kAll, kFirst2, kFirst4, kFirst16th, kFirst8th, kMoreBits };

struct MixtureRule {
  std::string_view part;  // of the name after "blk.N.", without ".weight"
  DType type;
  Layers layers = Layers::kAll;
  bool grouped_only = false;  // four or more query heads to a key-value head
};

/// A mixture as llama.cpp's users know it by the name.
struct Mixture {
  std::string_view name;
  DType base;
  uint32_t file_type;  // llama.cpp's LLAMA_FTYPE
  std::vector<MixtureRule> rules;
};

/// A matrix that makes logits, be it the embedding's, has the most to lose.
constexpr MixtureRule kHead = {"output", DType::kQ6_K};

const std::vector<Mixture>& Mixtures() {
  using L = Layers;
  static const std::vector<Mixture> mixtures = {
      {"q2_k_m",
       DType::kQ2_K,
       10,
       {kHead,
        {"attn_v", DType::kQ3_K},
        {"attn_v", DType::kQ4_K, L::kAll, true},
        {"attn_output", DType::kQ3_K},
        {"ffn_down", DType::kQ3_K}}},
      {"q3_k_s", DType::kQ3_K, 11, {kHead}},
      {"q3_k_m",
       DType::kQ3_K,
       12,
       {kHead,
        {"attn_v", DType::kQ4_K},
        {"attn_v", DType::kQ5_K, L::kFirst2},
        {"attn_qkv", DType::kQ4_K},
        {"attn_output", DType::kQ4_K},
        {"ffn_down", DType::kQ4_K, L::kMoreBits},
        {"ffn_down", DType::kQ5_K, L::kFirst16th}}},
      {"q3_k_l",
       DType::kQ3_K,
       13,
       {kHead,
        {"attn_v", DType::kQ5_K},
        {"attn_qkv", DType::kQ4_K},
        {"attn_output", DType::kQ5_K},
        {"ffn_down", DType::kQ5_K}}},
      {"q4_k_s",
       DType::kQ4_K,
       14,
       {kHead, {"attn_v", DType::kQ5_K, L::kFirst4}, {"ffn_down", DType::kQ5_K, L::kFirst8th}}},
      {"q4_k_m",
       DType::kQ4_K,
       15,
       {kHead,
        {"attn_v", DType::kQ6_K, L::kMoreBits},
        {"attn_qkv", DType::kQ5_K},
        {"ffn_down", DType::kQ6_K, L::kMoreBits}}},
      {"q5_k_s", DType::kQ5_K, 16, {kHead}},
      {"q5_k_m",
       DType::kQ5_K,
       17,
       {kHead,
        {"attn_v", DType::kQ6_K, L::kMoreBits},
        {"attn_qkv", DType::kQ6_K},
        {"ffn_down", DType::kQ6_K, L::kMoreBits}}},
  };
  return mixtures;
}

/// Types for every matrix, with llama.cpp's LLAMA_FTYPE.
constexpr std::pair<DType, uint32_t> kUniform[] = {
    {DType::kF32, 0},   {DType::kF16, 1},     {DType::kBF16, 32},   {DType::kQ4_0, 2},
    {DType::kQ4_1, 3},  {DType::kQ5_0, 8},    {DType::kQ5_1, 9},    {DType::kQ8_0, 7},
    {DType::kQ2_K, 10}, {DType::kQ3_K, 11},   {DType::kQ4_K, 14},   {DType::kQ5_K, 16},
    {DType::kQ6_K, 18}, {DType::kIQ4_NL, 25}, {DType::kIQ4_XS, 30}, {DType::kMXFP4, 38}};

/// A GGUF type by name, or nothing.
std::optional<DType> GgufType(std::string_view name) {
  for (const auto& [type, number] : kUniform) {
    if (DTypeName(type) == name) return type;
  }
  return std::nullopt;
}

struct Place {
  std::string_view part;  // "attn_v"
  int64_t layer = -1;
};

/// "blk.3.attn_v.weight" → attn_v of layer 3. Stacked experts count as the matrix that they stand for.
Place PlaceOf(std::string_view name) {
  Place place{name};
  if (name.starts_with("blk.")) {
    int64_t layer = 0;
    size_t at = 4;
    for (; at < name.size() && name[at] >= '0' && name[at] <= '9' && layer < 1'000'000; ++at) {
      layer = layer * 10 + (name[at] - '0');
    }
    if (at > 4 && at < name.size() && name[at] == '.') place = {name.substr(at + 1), layer};
  }
  place.part = place.part.substr(0, place.part.find('.'));
  if (place.part.ends_with("_exps")) place.part.remove_suffix(5);
  return place;
}

bool Holds(Layers layers, int64_t i, int64_t n) {
  switch (layers) {
    case Layers::kAll: return true;
    case Layers::kFirst2: return i < 2;
    case Layers::kFirst4: return i < 4;
    case Layers::kFirst16th: return i < n / 16;
    case Layers::kFirst8th: return i < n / 8;
    case Layers::kMoreBits: return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
  }
  return false;
}

/// What a model's tensors say about it.
struct ModelShape {
  int64_t layers = 0;
  bool tied = true;      // there is no output.weight: the embedding is the head
  bool grouped = false;  // four or more query heads to a key-value head
};

ModelShape ShapeOf(const std::vector<TensorToType>& tensors) {
  ModelShape shape;
  int64_t q = 0;
  int64_t v = 0;
  for (const TensorToType& tensor : tensors) {
    const Place place = PlaceOf(tensor.name);
    shape.layers = std::max(shape.layers, place.layer + 1);
    if (tensor.name == "output.weight") shape.tied = false;
    if (tensor.name == "blk.0.attn_q.weight") q = tensor.shape.front();
    if (tensor.name == "blk.0.attn_v.weight") v = tensor.shape.front();
  }
  shape.grouped = v > 0 && q / v >= 4;
  return shape;
}

DType MixtureType(const Mixture& mixture, const Place& place, const ModelShape& shape) {
  std::string_view part = place.part;
  if (part == "token_embd" && shape.tied) part = "output";
  DType type = mixture.base;
  for (const MixtureRule& rule : mixture.rules) {
    if (rule.part != part || (rule.grouped_only && !shape.grouped)) continue;
    if (Holds(rule.layers, place.layer, shape.layers)) type = rule.type;
  }
  return type;
}

/// Vectors, norms, learned positions and routers are small and matter much; llama.cpp does not take them otherwise.
bool StaysPlain(const TensorToType& tensor) {
  const std::string_view part = PlaceOf(tensor.name).part;
  return tensor.shape.size() < 2 || part.ends_with("_norm") || part == "position_embd" || part == "ffn_gate_inp" ||
         part == "token_types" || part.starts_with("rope_") || !tensor.name.ends_with(".weight");
}

/// The next type, with about as many bits, for rows that do not divide into this one's blocks.
DType NarrowerBlocks(DType type) {
  switch (type) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kIQ4_XS: return DType::kIQ4_NL;
    case DType::kQ4_K: return DType::kQ5_0;
    case DType::kQ5_K: return DType::kQ5_1;
    case DType::kQ6_K: return DType::kQ8_0;
    default: return DType::kF16;
  }
}

/// The user's rules, and which of them were of use.
class Rules {
 public:
  static Result<Rules> Parse(const std::vector<std::string>& texts) {
    Rules rules;
    for (const std::string& text : texts) {
      ASSIGN_OR_RETURN(KeepRule rule, ParseKeepRule(text));
      rules.rules_.push_back(std::move(rule));
    }
    rules.texts_ = texts;
    rules.used_.resize(texts.size());
    return rules;
  }

  /// By the last rule that matches, or `otherwise`.
  DType TypeOf(std::string_view name, DType otherwise) {
    std::string_view stem = name;
    if (stem.ends_with(".weight")) stem.remove_suffix(7);
    for (size_t i = 0; i < rules_.size(); ++i) {
      if (!GlobMatches(rules_[i].glob, name) && !GlobMatches(rules_[i].glob, stem)) continue;
      otherwise = rules_[i].type;
      used_[i] = true;
    }
    return otherwise;
  }

  Status CheckUsed(const std::vector<TensorToType>& tensors) const {
    for (size_t i = 0; i < texts_.size(); ++i) {
      if (used_[i]) continue;
      return InvalidArgument("--keep \"{}\" matches no tensor; names are such as {}", texts_[i],
                             tensors.empty() ? "none" : KindOfTensor(tensors[tensors.size() / 2].name));
    }
    return OkStatus();
  }

 private:
  std::vector<std::string> texts_;
  std::vector<KeepRule> rules_;
  std::vector<bool> used_;
};

}  // namespace

bool GlobMatches(std::string_view glob, std::string_view text) {
  // On a mismatch the last star takes one character more.
  size_t g = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t taken = 0;
  while (t < text.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      taken = t;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == text[t])) {
      ++g;
      ++t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++taken;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

Result<KeepRule> ParseKeepRule(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0) {
    return InvalidArgument("--keep \"{}\": a rule is GLOB=TYPE, such as output=q6_k", text);
  }
  const std::string_view name = text.substr(equals + 1);
  const std::optional<DType> type = GgufType(name);
  if (!type) {
    std::vector<std::string_view> names;
    for (const auto& [known, number] : kUniform) names.push_back(DTypeName(known));
    return InvalidArgument("--keep \"{}\": \"{}\" is no type; known are {}", text, name, fmt::join(names, ", "));
  }
  return KeepRule{std::string(text.substr(0, equals)), *type};
}

std::string KindOfTensor(std::string_view name) {
  std::string kind;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool begins = i == 0 || name[i - 1] == '.';
    size_t end = i;
    while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
    if (begins && end > i && end < name.size() && name[end] == '.') {
      kind += '*';
      i = end - 1;
    } else {
      kind += name[i];
    }
  }
  return kind;
}

std::string QuantizeTypeNames() {
  std::vector<std::string_view> names;
  for (const auto& [type, number] : kUniform) names.push_back(DTypeName(type));
  for (const Mixture& mixture : Mixtures()) names.push_back(mixture.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::optional<DType> PlainType(std::string_view type) {
  const std::optional<DType> found = GgufType(type);
  const bool plain = found && (*found == DType::kF32 || IsFloat16Bit(*found));
  return plain ? found : std::nullopt;
}

Result<TypePlan> PlanTypes(std::string_view type, const std::vector<std::string>& keep,
                           const std::vector<TensorToType>& tensors) {
  TypePlan plan;
  const auto mixture = std::ranges::find(Mixtures(), type, &Mixture::name);
  const bool mixed = mixture != Mixtures().end();
  const std::optional<DType> uniform = GgufType(type);
  if (!mixed && !uniform) return InvalidArgument("--type \"{}\" is not known; known are {}", type, QuantizeTypeNames());
  plan.file_type = mixed ? mixture->file_type
                         : std::ranges::find(kUniform, *uniform, [](const auto& pair) { return pair.first; })->second;
  ASSIGN_OR_RETURN(Rules rules, Rules::Parse(keep));
  std::set<std::string> noted;
  const ModelShape shape = ShapeOf(tensors);
  for (const TensorToType& tensor : tensors) {
    DType wanted = mixed ? MixtureType(*mixture, PlaceOf(tensor.name), shape) : *uniform;
    if (StaysPlain(tensor)) {
      const bool half = tensor.source == DType::kF16 && tensor.shape.size() > 1;
      wanted = half ? DType::kF16 : DType::kF32;
    }
    wanted = rules.TypeOf(tensor.name, wanted);
    DType fits = wanted;
    while (tensor.shape.back() % DTypeBlockSize(fits) != 0) fits = NarrowerBlocks(fits);
    if (fits != wanted) {
      std::string note =
          fmt::format("{}: rows of {} do not divide into blocks of {} ({}); {} instead", KindOfTensor(tensor.name),
                      tensor.shape.back(), DTypeBlockSize(wanted), DTypeName(wanted), DTypeName(fits));
      if (noted.insert(note).second) plan.notes.push_back(std::move(note));
    }
    plan.types.push_back(fits);
  }
  RETURN_IF_ERROR(rules.CheckUsed(tensors));
  return plan;
}

Result<TypePlan> PlanPlainTypes(DType type, const std::vector<std::string>& keep,
                                const std::vector<TensorToType>& tensors) {
  TypePlan plan;
  ASSIGN_OR_RETURN(Rules rules, Rules::Parse(keep));
  for (const TensorToType& tensor : tensors) {
    const bool floats =
        tensor.source == DType::kF32 || IsFloat16Bit(tensor.source) || DTypeBlockSize(tensor.source) > 1;
    const DType wanted = rules.TypeOf(tensor.name, floats ? type : tensor.source);
    if (floats && wanted != DType::kF32 && !IsFloat16Bit(wanted)) {
      return InvalidArgument("tensor \"{}\": safetensors hold f32, f16 and bf16, not {}", tensor.name,
                             DTypeName(wanted));
    }
    plan.types.push_back(floats ? wanted : tensor.source);
  }
  RETURN_IF_ERROR(rules.CheckUsed(tensors));
  return plan;
}

}  // namespace kvasir::apps
