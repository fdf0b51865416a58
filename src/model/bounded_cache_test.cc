// Models with bounded caches against a decoder in float64 that holds the tokens they keep, unrotated, and puts them at
// the positions that they are defined to have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>

#include "base/test_paths.h"
#include "kernels/exec.h"
#include "model/forward.h"
#include "model/model.h"
#include "model/weight_rules.h"
#include "model/weights.h"

namespace kvasir {
namespace {

using Row = std::vector<double>;

struct Loaded {
  DecoderSpec spec;
  ModelWeights weights;
  Buffer buffer;
};

/// A fixture in fp32, its spec changed by `change` first.
std::unique_ptr<Loaded> Load(const std::string& name, const std::function<void(DecoderSpec&)>& change = {}) {
  auto loaded = std::make_unique<Loaded>();
  ThreadPool pool(1);
  auto files = OpenModelFiles(std::filesystem::path(kFixtures) / "models" / name);
  EXPECT_TRUE(files.ok()) << files.status().message();
  const auto rules = RulesFor(*files);
  EXPECT_TRUE(rules.ok()) << rules.status().message();
  const auto plan = PlanWeights(files->spec, *rules, *files->source, DType::kF32, loaded->weights);
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  loaded->buffer = *PackWeights(*plan, pool, {});
  loaded->spec = std::move(files->spec);
  if (change) change(loaded->spec);
  return loaded;
}

std::vector<int32_t> Tokens(int64_t count, int32_t vocabulary) {
  std::vector<int32_t> tokens;
  tokens.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((i * i * 7 + i * 31 + 5) % vocabulary));
  return tokens;
}

std::vector<KvLayerShape> Shapes(const DecoderSpec& spec) {
  std::vector<KvLayerShape> shapes;
  shapes.reserve(spec.layers.size());
  for (const LayerSpec& layer : spec.layers) shapes.push_back({layer.attention.n_kv_heads, layer.attention.head_dim});
  return shapes;
}

/// Llama's decoder: RMS norms before the branches, a gated FFN with SiLU, no biases.
class Oracle {
 public:
  Oracle(const Loaded& model, KvBound bound) : spec_(model.spec), weights_(model.weights), bound_(bound) {
    kept_.resize(spec_.layers.size());
  }

  /// Logits after each token of a pass.
  std::vector<Row> Pass(std::span<const int32_t> tokens) {
    std::vector<Row> x;
    for (const int32_t id : tokens) x.push_back(UnpackedRow(weights_.embedding, id));
    for (size_t i = 0; i < spec_.layers.size(); ++i) Layer(i, x);
    for (Row& row : x) {
      row = Times(spec_.head.tied ? weights_.embedding : weights_.head.weight,
                  Norm(row, *spec_.final_norm, weights_.final_norm));
    }
    return x;
  }

 private:
  struct Token {
    Row k, v;  // k before rotation
  };

  static Row UnpackedRow(const PackedWeight& w, int64_t row) {
    std::vector<float> values(static_cast<size_t>(w.cols));
    UnpackRow(w, row, values.data());
    return {values.begin(), values.end()};
  }
  static Row Times(const PackedWeight& w, const Row& x) {
    Row y;
    for (int64_t n = 0; n < w.rows; ++n) {
      const Row row = UnpackedRow(w, n);
      y.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0));
    }
    return y;
  }
  static Row Norm(const Row& x, const NormSpec& spec, const kvasir::Norm& norm) {
    const double mean = std::inner_product(x.begin(), x.end(), x.begin(), 0.0) / static_cast<double>(x.size());
    Row y = x;
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = x[i] / std::sqrt(mean + static_cast<double>(spec.eps)) * static_cast<double>(norm.weight[i]);
    }
    return y;
  }

  /// One head at a position.
  Row Rotated(const double* head, int64_t width, int64_t position) const {
    Row out(head, head + width);
    const auto* rope = std::get_if<RopePosition>(&spec_.position);
    if (!rope) return out;
    const int64_t half = rope->dim / 2;
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) *
                           std::pow(rope->theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope->dim));
      const auto a = static_cast<size_t>(rope->interleaved ? 2 * i : i);
      const auto b = static_cast<size_t>(rope->interleaved ? 2 * i + 1 : i + half);
      out[a] = head[a] * std::cos(angle) - head[b] * std::sin(angle);
      out[b] = head[a] * std::sin(angle) + head[b] * std::cos(angle);
    }
    return out;
  }

  void Layer(size_t index, std::vector<Row>& x) {
    const LayerSpec& layer = spec_.layers[index];
    const AttentionSpec& a = layer.attention;
    const LayerWeights& w = weights_.layers[index];
    const int64_t d = a.head_dim;
    const auto q_width = static_cast<ptrdiff_t>(a.n_heads * d);
    const auto kv_width = static_cast<ptrdiff_t>(a.n_kv_heads * d);
    std::vector<Token>& kept = kept_[index];
    // The pass's tokens come behind what is left once the oldest behind the sinks have made room.
    const int64_t over = static_cast<int64_t>(kept.size() + x.size()) - bound_.tokens;
    if (over > 0) kept.erase(kept.begin() + bound_.sinks, kept.begin() + bound_.sinks + over);
    const auto first = static_cast<int64_t>(kept.size());
    std::vector<Row> queries;
    for (const Row& row : x) {
      Row qkv;
      for (const PackedWeight& part : w.qkv) {
        const Row y = Times(part, Norm(row, *layer.attn_norm, w.attn_norm));
        qkv.insert(qkv.end(), y.begin(), y.end());
      }
      queries.emplace_back(qkv.begin(), qkv.begin() + q_width);
      kept.push_back({{qkv.begin() + q_width, qkv.begin() + q_width + kv_width}, {qkv.end() - kv_width, qkv.end()}});
    }
    for (size_t t = 0; t < x.size(); ++t) {
      Row heads;
      for (int64_t h = 0; h < a.n_heads; ++h) {
        const Row out = Attend(a, h, queries[t], kept, first + static_cast<int64_t>(t));
        heads.insert(heads.end(), out.begin(), out.end());
      }
      AddTo(x[t], Times(w.out.weight, heads));
      AddTo(x[t], Ffn(layer, w, x[t]));
    }
  }

  /// Head h of the token at position `own` inside the cache.
  Row Attend(const AttentionSpec& a, int64_t h, const Row& q, const std::vector<Token>& kept, int64_t own) const {
    const int64_t d = a.head_dim;
    const int64_t kv_head = h / (a.n_heads / a.n_kv_heads);
    const Row query = Rotated(q.data() + h * d, d, own);
    const auto* alibi = std::get_if<AlibiPosition>(&spec_.position);
    Row out(static_cast<size_t>(d), 0.0);
    double sum = 0.0;
    for (int64_t j = 0; j <= own; ++j) {
      if (a.window > 0 && j <= own - a.window) continue;
      const Token& token = kept[static_cast<size_t>(j)];
      const Row key = Rotated(token.k.data() + kv_head * d, d, j);
      double score = static_cast<double>(a.scale) * std::inner_product(key.begin(), key.end(), query.begin(), 0.0);
      if (alibi) score += static_cast<double>(alibi->slopes[static_cast<size_t>(h)]) * static_cast<double>(j - own);
      const double p = std::exp(score);
      sum += p;
      for (int64_t i = 0; i < d; ++i) {
        out[static_cast<size_t>(i)] += p * token.v[static_cast<size_t>(kv_head * d + i)];
      }
    }
    for (double& value : out) value /= sum;
    return out;
  }

  static Row Ffn(const LayerSpec& layer, const LayerWeights& w, const Row& x) {
    // Panels of 16 rows of the gate and of `up` alternate.
    const Row both = Times(w.ffn.up.weight, Norm(x, *layer.ffn_norm, w.ffn_norm));
    Row inner;
    for (int64_t i = 0; i < layer.ffn.width; ++i) {
      const auto at = static_cast<size_t>(i / 16 * 32 + i % 16);
      inner.push_back(both[at] / (1.0 + std::exp(-both[at])) * both[at + 16]);
    }
    return Times(w.ffn.down.weight, inner);
  }

  static void AddTo(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  const DecoderSpec& spec_;
  const ModelWeights& weights_;
  KvBound bound_;
  std::vector<std::vector<Token>> kept_;  // [layers]
};

/// A model with a cache.
class Runner {
 public:
  Runner(const Loaded& model, CacheKind kind, KvBound bound, KvType type, const KernelSet* set, int threads = 2)
      : model_(model), pool_(threads), ctx_{.pool = &pool_, .scratch = &arena_, .kernels = set} {
    auto cache = MakeKvCache(kind, {.layers = shapes_,
                                    .type = type,
                                    .max_tokens = 100'000,
                                    .max_sequences = 4,
                                    .bound = bound,
                                    .rotated_keys = std::holds_alternative<RopePosition>(model.spec.position)});
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    cache_ = *std::move(cache);
  }
  KvCache& cache() { return *cache_; }

  struct Input {
    SeqId seq;
    std::span<const int32_t> tokens;
  };
  /// Logits after every token of all inputs, which run together; commits them.
  std::vector<std::vector<float>> Run(const std::vector<Input>& inputs) {
    ForwardBatch batch;
    for (const Input& input : inputs) {
      EXPECT_TRUE(cache_->Reserve(input.seq, static_cast<int64_t>(input.tokens.size())));
      batch.sequences.push_back({.seq = input.seq,
                                 .first_token = static_cast<int32_t>(batch.tokens.size()),
                                 .count = static_cast<int32_t>(input.tokens.size())});
      batch.tokens.insert(batch.tokens.end(), input.tokens.begin(), input.tokens.end());
    }
    for (int32_t i = 0; i < static_cast<int32_t>(batch.tokens.size()); ++i) batch.output_rows.push_back(i);
    arena_.Reset();
    const auto hidden = RunForward(ctx_, model_.spec, model_.weights, batch, *cache_);
    EXPECT_TRUE(hidden.ok()) << hidden.status().message();
    const int64_t vocabulary = model_.spec.vocab_size;
    std::vector<float> logits(static_cast<size_t>(hidden->rows * vocabulary));
    EXPECT_TRUE(RunHead(ctx_, model_.spec, model_.weights, *hidden, {logits.data(), hidden->rows, vocabulary}).ok());
    for (const Input& input : inputs) cache_->Commit(input.seq, static_cast<int64_t>(input.tokens.size()));
    std::vector<std::vector<float>> rows;
    for (auto at = logits.begin(); at != logits.end(); at += vocabulary) rows.emplace_back(at, at + vocabulary);
    return rows;
  }

  /// All tokens in passes of these lengths, which are repeated.
  std::vector<std::vector<float>> RunAll(SeqId seq, std::span<const int32_t> tokens, std::span<const int> passes) {
    std::vector<std::vector<float>> rows;
    for (size_t i = 0; !tokens.empty(); ++i) {
      const size_t count = std::min(static_cast<size_t>(passes[i % passes.size()]), tokens.size());
      for (auto& row : Run({{seq, tokens.first(count)}})) rows.push_back(std::move(row));
      tokens = tokens.subspan(count);
    }
    return rows;
  }

 private:
  const Loaded& model_;
  std::vector<KvLayerShape> shapes_ = Shapes(model_.spec);
  ThreadPool pool_;
  Arena arena_;
  ExecContext ctx_;
  std::unique_ptr<KvCache> cache_;
};

CacheKind KindOf(KvBound bound) { return bound.sinks > 0 ? CacheKind::kSink : CacheKind::kWindow; }

constexpr int64_t kBand = 9;

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kI8, KvType::kI4};

/// The greatest error of a row as a part of its largest logit.
double Error(const std::vector<float>& got, const Row& want) {
  double worst = 0.0;
  double largest = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - want[i]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    largest = std::max(largest, std::abs(want[i]));
  }
  return worst / largest;
}

struct Variant {
  const char* name;
  void (*change)(DecoderSpec&);
};

void SetRope(DecoderSpec& spec, int32_t dim, bool interleaved) {
  auto& rope = std::get<RopePosition>(spec.position);
  rope.dim = dim;
  rope.interleaved = interleaved;
}

const Variant kVariants[] = {
    {"half-split", [](DecoderSpec&) {}},
    {"partial half-split", [](DecoderSpec& spec) { SetRope(spec, 6, false); }},
    {"interleaved", [](DecoderSpec& spec) { SetRope(spec, 10, true); }},
    {"partial interleaved", [](DecoderSpec& spec) { SetRope(spec, 4, true); }},
    {"ALiBi",
     [](DecoderSpec& spec) { spec.position = AlibiPosition{.slopes = AlibiSlopes(spec.layers[0].attention.n_heads)}; }},
    {"no positions", [](DecoderSpec& spec) { spec.position = NoPosition{}; }},
    {"a layer with a window of its own", [](DecoderSpec& spec) { spec.layers[1].attention.window = 6; }},
};

// Of f32 and f16 this is what fp32 arithmetic and rounded keys leave; wrong positions would be several tenths.
double Tolerance(KvType type) {
  switch (type) {
    case KvType::kF32: return 2e-5;
    case KvType::kF16: return 5e-3;
    case KvType::kBF16: return 4e-2;
    case KvType::kI8: return 6e-2;
    case KvType::kI4: break;
  }
  return 0.6;
}

TEST(BoundedCache, IsWhatIsDefined) {
  const std::vector<int> kPasses[] = {{1}, {3, 1, 1, 5, 2, 1}};
  for (const Variant& variant : kVariants) {
    const auto model = Load("llama-gqa", variant.change);
    const std::vector<int32_t> tokens = Tokens(45, model->spec.vocab_size);
    for (const KvBound bound : {KvBound{11, 4}, KvBound{20, 1}, KvBound{8, 0}}) {
      for (const std::vector<int>& passes : kPasses) {
        Oracle oracle(*model, bound);
        std::vector<Row> expected;
        std::span<const int32_t> left = tokens;
        for (size_t i = 0; !left.empty(); ++i) {
          const size_t count = std::min(static_cast<size_t>(passes[i % passes.size()]), left.size());
          for (Row& row : oracle.Pass(left.first(count))) expected.push_back(std::move(row));
          left = left.subspan(count);
        }
        for (const KernelSet* set : AvailableKernelSets()) {
          for (const KvType type : kTypes) {
            Runner runner(*model, KindOf(bound), bound, type, set);
            const auto rows = runner.RunAll(*runner.cache().Create(), tokens, passes);
            ASSERT_EQ(rows.size(), expected.size());
            double worst = 0.0;
            for (size_t r = 0; r < rows.size(); ++r) worst = std::max(worst, Error(rows[r], expected[r]));
            EXPECT_LE(worst, Tolerance(type)) << variant.name << ", " << KvTypeName(type) << ", " << KernelSetName(*set)
                                              << ", sinks " << bound.sinks << ", passes of " << passes[0];
          }
        }
      }
    }
  }
}

TEST(BoundedCache, IsTheDynamicCacheUntilTokensAreDropped) {
  constexpr int kPasses[] = {1, 7, 2};
  for (const Variant& variant : kVariants) {
    const auto model = Load("llama-gqa", variant.change);
    const std::vector<int32_t> tokens = Tokens(30, model->spec.vocab_size);
    for (const KernelSet* set : AvailableKernelSets()) {
      for (const KvType type : kTypes) {
        Runner dynamic(*model, CacheKind::kDynamic, {}, type, set);
        const auto expected = dynamic.RunAll(*dynamic.cache().Create(), tokens, kPasses);
        for (const KvBound bound : {KvBound{30, 0}, KvBound{30, 4}}) {
          Runner runner(*model, KindOf(bound), bound, type, set);
          EXPECT_EQ(runner.RunAll(*runner.cache().Create(), tokens, kPasses), expected) << variant.name;  // to the bit
        }
      }
    }
  }
}

// In a pass over the whole text, every token of every layer sees the last L tokens.
TEST(BoundedCache, AWindowIsABandMask) {
  constexpr int kOne[] = {1};
  constexpr int kAll[] = {60};
  for (const char* name : {"llama", "llama-gqa", "gpt2", "xglm", "bloom", "gpt-neox", "falcon-rw", "opt", "gemma2"}) {
    const auto model = Load(name);
    const auto banded = Load(name, [](DecoderSpec& spec) {
      for (LayerSpec& layer : spec.layers) {
        int64_t& window = layer.attention.window;
        window = window > 0 ? std::min(window, kBand) : kBand;
      }
    });
    const std::vector<int32_t> tokens = Tokens(60, model->spec.vocab_size);
    Runner whole(*banded, CacheKind::kDynamic, {}, KvType::kF32, AvailableKernelSets().front());
    const auto expected = whole.RunAll(*whole.cache().Create(), tokens, kAll);
    Runner runner(*model, CacheKind::kWindow, {kBand, 0}, KvType::kF32, AvailableKernelSets().front());
    const auto rows = runner.RunAll(*runner.cache().Create(), tokens, kOne);
    for (size_t r = 0; r < rows.size(); ++r) {
      EXPECT_LE(Error(rows[r], {expected[r].begin(), expected[r].end()}), 2e-5) << name << " row " << r;
    }
  }
}

TEST(BoundedCache, ForksGoOnAsIfTheyWereAlone) {
  constexpr int kOne[] = {1};
  const auto model = Load("llama-gqa");
  const std::vector<int32_t> tokens = Tokens(40, model->spec.vocab_size);
  std::vector<int32_t> other = tokens;
  for (size_t i = 18; i < other.size(); ++i) other[i] = (other[i] + 3) % model->spec.vocab_size;
  // Forked while the sinks are being filled, before and after tokens are dropped.
  for (const size_t forked : {size_t{2}, size_t{7}, size_t{18}}) {
    for (const KvBound bound : {KvBound{10, 4}, KvBound{10, 0}}) {
      for (const KvType type : kTypes) {
        const auto alone = [&](std::span<const int32_t> text) {
          Runner runner(*model, KindOf(bound), bound, type, AvailableKernelSets().front());
          return runner.RunAll(*runner.cache().Create(), text, kOne);
        };
        const auto expected = alone(tokens);
        const auto expected_other = alone(other);
        Runner runner(*model, KindOf(bound), bound, type, AvailableKernelSets().front());
        const SeqId seq = *runner.cache().Create();
        runner.RunAll(seq, std::span(tokens).first(forked), kOne);
        const SeqId fork = *runner.cache().Fork(seq);
        for (size_t i = forked; i < tokens.size(); ++i) {
          const auto rows =
              runner.Run({{fork, std::span(other).subspan(i, 1)}, {seq, std::span(tokens).subspan(i, 1)}});
          ASSERT_EQ(rows[0], expected_other[i]) << "token " << i << ", " << KvTypeName(type);
          ASSERT_EQ(rows[1], expected[i]) << "token " << i << ", " << KvTypeName(type);
        }
      }
    }
  }
}

TEST(BoundedCache, ThreadsChangeNoBit) {
  constexpr int kPasses[] = {1, 5, 2};
  const auto model = Load("llama-gqa");
  const std::vector<int32_t> tokens = Tokens(50, model->spec.vocab_size);
  for (const KvBound bound : {KvBound{17, 3}, KvBound{17, 0}}) {
    std::vector<std::vector<float>> expected;
    for (const int threads : {1, 2, 5}) {
      Runner runner(*model, KindOf(bound), bound, KvType::kBF16, AvailableKernelSets().front(), threads);
      const auto rows = runner.RunAll(*runner.cache().Create(), tokens, kPasses);
      if (expected.empty()) expected = rows;
      EXPECT_EQ(rows, expected);
    }
  }
}

}  // namespace
}  // namespace kvasir
