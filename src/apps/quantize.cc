// kvasir quantize: models in fewer bits.
#include "apps/quantize.h"

#include "apps/model_flags.h"
#include "apps/quantize_gptq.h"
#include "apps/quantize_types.h"
#include "apps/verb.h"

namespace kvasir::apps {
namespace {

enum class Method : uint8_t { kNearest, kGptq };

class QuantizeVerb final : public Verb {
 public:
  std::string_view name() const override { return "quantize"; }
  std::string_view summary() const override { return "Write a model in fewer bits, as GGUF or safetensors."; }
  std::string_view description() const override {
    return "usage: kvasir quantize -m MODEL -o FILE.gguf|FOLDER --type TYPE [flags]\n"
           "       kvasir quantize -m FOLDER -o FOLDER --method gptq --bits 4 --calibration FILE [flags]\n\n"
           "MODEL is a Hugging Face folder or a .gguf file. A type's name is for every matrix: q8_0 q6_k q5_k q4_k "
           "q3_k\n"
           "q2_k q5_1 q5_0 q4_1 q4_0 iq4_nl iq4_xs mxfp4 f32 f16 bf16. Mixtures give more bits to the output and to\n"
           "what feeds the residual stream: q5_k_m q5_k_s q4_k_m q4_k_s q3_k_l q3_k_m q3_k_s q2_k_m. A FOLDER takes\n"
           "f32, f16 or bf16.\n"
           "  kvasir quantize -m my-model -o small.gguf --type q4_k_m --calibration text.txt\n"
           "  kvasir quantize -m big.gguf -o small.gguf --type q4_k --keep output=q6_k --keep 'blk.*.attn_v=q6_k'\n"
           "  kvasir quantize -m my-model -o small --method gptq --bits 4 --group-size 64 --calibration "
           "text.txt\n";
  }

  void AddFlags(FlagTable& flags) override {
    flags.Group("Model");
    flags.Text("-m,--model", "PATH", &model_, "Hugging Face folder or .gguf file.", "the demonstration model");
    flags.Switch("--requantize", &options_.requantize, "Take a model that is quantised already.");
    flags.Text("--pre", "NAME", &options_.pre_tokenizer,
               "How the vocabulary divides text, to be written as tokenizer.ggml.pre.", "found out");
    flags.Group("Output");
    flags.Text("-o,--output", "PATH", &output_, "A .gguf file, or a folder for safetensors.");
    flags.Text("--type", "TYPE", &options_.type, "Type or mixture, see above.");
    flags.Texts("--keep", "GLOB=TYPE", &options_.keep,
                "Type of the tensors whose names match, such as blk.*.attn_v=q6_k; the last match counts.");
    flags.Choice("--method", &method_, {{"rtn", Method::kNearest}, {"gptq", Method::kGptq}},
                 "rtn: each block's scales of least error. gptq: layer by layer on a calibration text, each rounding's "
                 "error made up for by what is still to be rounded; a folder in AutoGPTQ's layout.");
    flags.Switch("--equalize", &options_.equalize,
                 "Scale columns of weights that are far smaller or larger than the others of their matrix by powers of "
                 "two, and what makes their inputs the other way, so that blocks of types lose none; GGUF only.",
                 "--no-equalize");
    flags.Switch("--force", &options_.force, "Replace what exists.");
    flags.Switch("--json", &options_.json, "Print the report as JSON: sizes, bits per weight, relative RMSE.");
    flags.Group("Importance of inputs");
    flags.Text("--calibration", "FILE", &options_.calibration,
               "Run the model on this text and weight errors by how strongly inputs are driven; GPTQ needs one.");
    flags.Int("--calibration-chunk", "N", &options_.calibration_chunk, 16, int64_t{1} << 20,
              "Tokens run at once; at most the context.");
    flags.Int("--calibration-chunks", "N", &options_.calibration_chunks, 0, int64_t{1} << 40,
              "At most so many chunks; 0: the whole text.");
    flags.Text("--save-imatrix", "FILE", &options_.save_imatrix, "Write what the text gave, as llama.cpp's imatrix.");
    flags.Text("--imatrix", "FILE", &options_.imatrix, "Use such a file (.gguf, or the older binary form).");
    gptq_.Add(flags);
    flags.Group("Computing");
    flags.Int("-t,--threads", "N", &options_.threads, 1, 1024, "Threads to compute with.",
              "all processors this process may use");
  }

  Status Run() override {
    ASSIGN_OR_RETURN(options_.source, FindModel(model_));
    options_.output = output_;
    if (method_ == Method::kGptq) return RunWithGptq();
    if (options_.type.empty()) return InvalidArgument("give --type; known are {}", QuantizeTypeNames());
    return RunRtnQuantize(options_);
  }

 private:
  Status RunWithGptq() const {
    const std::pair<const char*, bool> others[] = {
        {"--type", !options_.type.empty()},         {"--keep", !options_.keep.empty()},
        {"--imatrix", !options_.imatrix.empty()},   {"--save-imatrix", !options_.save_imatrix.empty()},
        {"--pre", !options_.pre_tokenizer.empty()}, {"--requantize", options_.requantize}};
    for (const auto& [flag, given] : others) {
      if (given) return InvalidArgument("{} is for --method rtn; GPTQ takes --bits and --group-size", flag);
    }
    if (output_.empty()) return InvalidArgument("give the folder to be written with -o");
    RETURN_IF_ERROR(gptq_.Validate());
    return RunGptq({.source = options_.source,
                    .output = options_.output,
                    .calibration = options_.calibration,
                    .calibration_tokens = {},
                    .flags = gptq_,
                    .threads = options_.threads.value_or(0),
                    .force = options_.force,
                    .quiet = options_.json},
                   options_.json);
  }

  QuantizeOptions options_;
  std::string model_;
  std::string output_;
  Method method_ = Method::kNearest;
  GptqFlags gptq_;
};

}  // namespace

std::unique_ptr<Verb> MakeQuantizeVerb() { return std::make_unique<QuantizeVerb>(); }

}  // namespace kvasir::apps
