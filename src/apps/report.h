// How runs are reported: JSON objects and the line of figures.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <string>

#include "apps/flags.h"
#include "engine/engine.h"

namespace kvasir::apps {

double PerSecond(int64_t count, double ms);

boost::json::object TimingsJson(const Timings& timings);
boost::json::object MemoryJson(const MemoryReport& memory);
boost::json::object PlanJson(const MemoryPlan& plan);

/// "prefill 12 tokens, 812.3 tok/s · decode 127 tokens, 604.1 tok/s · …": what a run did, on one line.
std::string Figures(Engine& engine, const GenerationOutput& output);

/// Adds a number to JSON text as a plain decimal: whole ones and fp32 values as they are, others with at most nine
/// significant digits. What is not finite is null, since JSON has no word for it.
void AppendJsonNumber(double number, std::string& out);

/// Compact JSON with such numbers.
std::string PlainJson(const boost::json::value& value);
/// The same and a newline.
std::string JsonLine(const boost::json::value& value);

}  // namespace kvasir::apps
