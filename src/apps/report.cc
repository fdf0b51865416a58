#include "apps/report.h"

#include <boost/json/serialize.hpp>

#include "apps/terminal.h"

namespace kvasir::apps {

double PerSecond(int64_t count, double ms) { return ms > 0 ? static_cast<double>(count) * 1000.0 / ms : 0.0; }

boost::json::object TimingsJson(const Timings& timings) {
  return {{"load_ms", timings.load_ms},
          {"prefill_ms", timings.prefill_ms},
          {"decode_ms", timings.decode_ms},
          {"prefill_tokens", timings.prefill_tokens},
          {"cached_tokens", timings.cached_tokens},
          {"decode_tokens", timings.decode_tokens},
          {"prefill_tok_s", PerSecond(timings.prefill_tokens, timings.prefill_ms)},
          {"decode_tok_s", PerSecond(timings.decode_tokens, timings.decode_ms)}};
}

boost::json::object MemoryJson(const MemoryReport& memory) {
  return {{"weights_bytes", memory.weights},
          {"kv_cache_bytes", memory.kv_cache},
          {"activation_peak_bytes", memory.activation_peak},
          {"process_peak_bytes", memory.process_peak}};
}

std::string Figures(Engine& engine, const GenerationOutput& output) {
  const Timings& t = output.timings;
  const MemoryReport& m = output.memory;
  std::string line = fmt::format("prefill {} tokens", t.prefill_tokens);
  if (t.cached_tokens > 0) line += fmt::format(" (+{} cached)", t.cached_tokens);
  line += fmt::format(", {:.1f} tok/s · decode {} tokens, {:.1f} tok/s", PerSecond(t.prefill_tokens, t.prefill_ms),
                      t.decode_tokens, PerSecond(t.decode_tokens, t.decode_ms));
  line += fmt::format(" · load {:.0f} ms · weights {}, KV {}, activations {}, process peak {}", t.load_ms,
                      HumanBytes(m.weights), HumanBytes(m.kv_cache), HumanBytes(m.activation_peak),
                      HumanBytes(m.process_peak));
  line += fmt::format(" · {}, {} thread{}", KernelSetName(*engine.exec().kernels), engine.threads(),
                      engine.threads() == 1 ? "" : "s");
  return line;
}

std::string JsonLine(const boost::json::object& object) { return boost::json::serialize(object) + "\n"; }

}  // namespace kvasir::apps
