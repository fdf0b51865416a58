// What is counted and measured, as Prometheus reads it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/batch_loop.h"

namespace kvasir::server {

/// A request that has ended.
struct RequestFigures {
  std::string_view finish;  // "stop", "length", "cancelled", "error"
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  double queued_ms = 0;
  double first_token_ms = 0;  // 0: there was none
  double total_ms = 0;
};

/// Every figure under two names: kvasir_…, and vllm:… as dashboards made for vLLM ask for it. Thread-safe.
class Metrics {
 public:
  explicit Metrics(const std::string& model);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void Step(const BatchStep& step, const SchedulerCounts& counts);
  void KvUse(double ratio);  // of the pool's blocks, those that sequences hold
  void Token(double milliseconds_since_last);
  void Request(const RequestFigures& figures);
  void Response(int status);

  /// The text format, version 0.0.4.
  std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir::server
