#include "apps/report.h"

#include <boost/json/serialize.hpp>

#include <charconv>
#include <cmath>
#include <iterator>

namespace kvasir::apps {
namespace {

void AppendJson(const boost::json::value& value, std::string& out) {
  if (const auto* array = value.if_array()) {
    out += '[';
    for (const boost::json::value& item : *array) {
      if (&item != array->data()) out += ',';
      AppendJson(item, out);
    }
    out += ']';
  } else if (const auto* object = value.if_object()) {
    out += '{';
    for (const auto& member : *object) {
      if (&member != object->begin()) out += ',';
      out += boost::json::serialize(member.key());
      out += ':';
      AppendJson(member.value(), out);
    }
    out += '}';
  } else if (const double* number = value.if_double()) {
    AppendJsonNumber(*number, out);
  } else {
    out += boost::json::serialize(value);
  }
}

}  // namespace

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

boost::json::object PlanJson(const MemoryPlan& plan) {
  return {{"parameters", plan.parameters},
          {"fp32_rule_bytes", RuleBytesFp32(plan.parameters)},
          {"bits16_rule_bytes", RuleBytes16Bit(plan.parameters)},
          {"dtype", DTypeName(plan.dtype)},
          {"weights_bytes", plan.weights},
          {"weights_mapped", plan.weights_mapped},
          {"kv_type", KvTypeName(plan.kv_type)},
          {"kv_bytes_per_token", plan.kv_bytes_per_token},
          {"context", plan.context},
          {"cached_tokens", plan.cached_tokens},
          {"kv_cache_bytes", plan.kv_cache},
          {"activation_bytes", plan.activations},
          {"process_bytes", plan.process},
          {"needed_bytes", plan.Needed()},
          {"process_peak_bytes", plan.process_peak}};
}

std::string Figures(Engine& engine, const GenerationOutput& output) {
  const Timings& t = output.timings;
  const MemoryReport& m = output.memory;
  std::string line = fmt::format("prefill {} tokens", t.prefill_tokens);
  if (t.cached_tokens > 0) line += fmt::format(" (+{} cached)", t.cached_tokens);
  line += fmt::format(", {:.1f} tok/s · decode {} tokens, {:.1f} tok/s", PerSecond(t.prefill_tokens, t.prefill_ms),
                      t.decode_tokens, PerSecond(t.decode_tokens, t.decode_ms));
  line += fmt::format(" · load {:.0f} ms · weights {}, KV {}, activations {}, process peak {}", t.load_ms,
                      GigabytesText(m.weights), GigabytesText(m.kv_cache), GigabytesText(m.activation_peak),
                      GigabytesText(m.process_peak));
  line += fmt::format(" · {}, {} thread{}", KernelSetName(*engine.exec().kernels), engine.threads(),
                      engine.threads() == 1 ? "" : "s");
  return line;
}

void AppendJsonNumber(double number, std::string& out) {
  // Boost writes 12.5 as 1.25E1, which is JSON but no pleasure to read or to grep for.
  constexpr int kDigits = 9;
  constexpr double kWhole = 1e15;  // up to here every digit of a whole number is meant
  if (!std::isfinite(number)) {
    out += "null";
    return;
  }
  char text[512];  // the longest are 1e-308 and 1e308 with their digits
  const auto fixed = [&](auto value) {
    return std::to_chars(text, std::end(text), value, std::chars_format::fixed).ptr;
  };
  const bool whole = std::trunc(number) == number && std::abs(number) < kWhole;
  const auto single = static_cast<float>(number);
  char* end = nullptr;
  if (whole) {
    end = fixed(number);
  } else if (static_cast<double>(single) == number) {
    // 1e-5f is 0.00001 here, not the 0.00000999999975 that it is as a double.
    end = fixed(single);
  } else {
    end = std::to_chars(text, std::end(text), number, std::chars_format::scientific, kDigits - 1).ptr;
    double rounded = number;
    std::from_chars(text, end, rounded);
    end = fixed(std::isfinite(rounded) ? rounded : number);
  }
  out.append(text, end);
}

std::string PlainJson(const boost::json::value& value) {
  std::string out;
  AppendJson(value, out);
  return out;
}

std::string JsonLine(const boost::json::value& value) { return PlainJson(value) + "\n"; }

}  // namespace kvasir::apps
