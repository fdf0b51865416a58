#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <vector>

namespace kvasir::server {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;

/// The same figure under both names.
template <typename T>
struct Twin {
  T* own = nullptr;
  T* vllm = nullptr;
};

void Add(Twin<Counter> counter, double value) {
  counter.own->Increment(value);
  counter.vllm->Increment(value);
}
void Set(Twin<Gauge> gauge, double value) {
  gauge.own->Set(value);
  gauge.vllm->Set(value);
}
void Observe(Twin<Histogram> histogram, double value) {
  histogram.own->Observe(value);
  histogram.vllm->Observe(value);
}

/// Seconds: from a small model's token to a long answer.
const std::vector<double>& Buckets() {
  static const std::vector<double> buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                              0.15,  0.2,    0.3,   0.5,  0.75,  1,    2.5,   5,
                                              10,    20,     40,    80,   160,   320,  640,   2560};
  return buckets;
}

}  // namespace

struct Metrics::Impl {
  explicit Impl(const std::string& model_name) : model(model_name) {}

  std::string model;
  prometheus::Registry registry;

  Twin<Counter> MakeCounter(const char* name, const char* vllm_name, const char* help) {
    return {&prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({}),
            &prometheus::BuildCounter().Name(vllm_name).Help(help).Register(registry).Add({{"model_name", model}})};
  }
  Twin<Gauge> MakeGauge(const char* name, const char* vllm_name, const char* help) {
    return {&prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({}),
            &prometheus::BuildGauge().Name(vllm_name).Help(help).Register(registry).Add({{"model_name", model}})};
  }
  Twin<Histogram> MakeHistogram(const char* name, const char* vllm_name, const char* help) {
    return {&prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, Buckets()),
            &prometheus::BuildHistogram().Name(vllm_name).Help(help).Register(registry).Add({{"model_name", model}},
                                                                                            Buckets())};
  }

  Twin<Gauge> running =
      MakeGauge("kvasir_requests_running", "vllm:num_requests_running", "Sequences that are being run.");
  Twin<Gauge> waiting =
      MakeGauge("kvasir_requests_waiting", "vllm:num_requests_waiting", "Sequences that wait to be run.");
  Twin<Gauge> kv_usage = MakeGauge("kvasir_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc",
                                   "KV-cache blocks that sequences hold, of all; 1 is full.");
  Twin<Counter> prefix_queries = MakeCounter("kvasir_prefix_cache_queries_total", "vllm:prefix_cache_queries_total",
                                             "Tokens of prompts looked up in the tree of prefixes.");
  Twin<Counter> prefix_hits = MakeCounter("kvasir_prefix_cache_hits_total", "vllm:prefix_cache_hits_total",
                                          "Tokens of prompts found in the tree of prefixes.");
  Twin<Counter> preemptions = MakeCounter("kvasir_preemptions_total", "vllm:num_preemptions_total",
                                          "Sequences taken out of a full cache, to be run again.");
  Counter* MakeOwnCounter(const char* name, const char* help) {
    return &prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  Counter* swapped_out =
      MakeOwnCounter("kvasir_swapped_out_bytes_total", "Blocks of preempted sequences copied out of the cache.");
  Counter* swapped_in = MakeOwnCounter("kvasir_swapped_in_bytes_total", "And copied back.");
  Gauge* swap_use = &prometheus::BuildGauge()
                         .Name("kvasir_swap_space_used_bytes")
                         .Help("Blocks of preempted sequences that are kept outside the cache.")
                         .Register(registry)
                         .Add({});
  Twin<Counter> prompt_tokens =
      MakeCounter("kvasir_prompt_tokens_total", "vllm:prompt_tokens_total", "Tokens of prompts, cached ones included.");
  Twin<Counter> generated =
      MakeCounter("kvasir_generation_tokens_total", "vllm:generation_tokens_total", "Tokens chosen.");
  Twin<Histogram> first_token = MakeHistogram("kvasir_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
                                              "From a request's arrival to its first token.");
  Twin<Histogram> inter_token = MakeHistogram("kvasir_inter_token_latency_seconds", "vllm:inter_token_latency_seconds",
                                              "Between two tokens of an answer.");
  Twin<Histogram> total = MakeHistogram("kvasir_e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds",
                                        "From a request's arrival to its end.");
  Twin<Histogram> queued = MakeHistogram("kvasir_request_queue_time_seconds", "vllm:request_queue_time_seconds",
                                         "From a request's arrival until its first tokens are run.");
  Histogram* steps = &prometheus::BuildHistogram()
                          .Name("kvasir_step_seconds")
                          .Help("Steps of the engine.")
                          .Register(registry)
                          .Add({}, Buckets());
  prometheus::Family<Counter>* ended = &prometheus::BuildCounter()
                                            .Name("kvasir_request_success_total")
                                            .Help("Requests that ended, by reason.")
                                            .Register(registry);
  prometheus::Family<Counter>* vllm_ended = &prometheus::BuildCounter()
                                                 .Name("vllm:request_success_total")
                                                 .Help("Requests that ended, by reason.")
                                                 .Register(registry);
  prometheus::Family<Counter>* responses = &prometheus::BuildCounter()
                                                .Name("kvasir_http_responses_total")
                                                .Help("Answers by HTTP status.")
                                                .Register(registry);
  // Of the engine's thread, which alone reports steps.
  SchedulerCounts before;
};

Metrics::Metrics(const std::string& model) : impl_(std::make_unique<Impl>(model)) {}
Metrics::~Metrics() = default;

void Metrics::Step(const BatchStep& step, const SchedulerCounts& counts) {
  Set(impl_->running, static_cast<double>(counts.running));
  Set(impl_->waiting, static_cast<double>(counts.waiting));
  const SchedulerCounts& before = impl_->before;
  Add(impl_->preemptions, static_cast<double>(counts.preempted - before.preempted));
  impl_->swapped_out->Increment(static_cast<double>(counts.swapped_out_bytes - before.swapped_out_bytes));
  impl_->swapped_in->Increment(static_cast<double>(counts.swapped_in_bytes - before.swapped_in_bytes));
  impl_->swap_use->Set(static_cast<double>(counts.swap_bytes));
  impl_->before = counts;
  if (!step.parts.empty()) impl_->steps->Observe(step.milliseconds / 1000);
}

void Metrics::KvUse(double ratio) { Set(impl_->kv_usage, ratio); }

void Metrics::Token(double milliseconds_since_last) { Observe(impl_->inter_token, milliseconds_since_last / 1000); }

void Metrics::Request(const RequestFigures& figures) {
  const std::string reason(figures.finish);
  impl_->ended->Add({{"finished_reason", reason}}).Increment();
  impl_->vllm_ended->Add({{"model_name", impl_->model}, {"finished_reason", reason}}).Increment();
  Add(impl_->prompt_tokens, static_cast<double>(figures.prompt_tokens));
  Add(impl_->generated, static_cast<double>(figures.completion_tokens));
  Add(impl_->prefix_queries, static_cast<double>(figures.prompt_tokens));
  Add(impl_->prefix_hits, static_cast<double>(figures.cached_tokens));
  Observe(impl_->total, figures.total_ms / 1000);
  if (figures.queued_ms > 0) Observe(impl_->queued, figures.queued_ms / 1000);
  if (figures.first_token_ms > 0) Observe(impl_->first_token, figures.first_token_ms / 1000);
}

void Metrics::Response(int status) {
  // A client chooses no more than one of a hundred statuses; a label for each is no way to fill memory.
  impl_->responses->Add({{"code", std::to_string(status)}}).Increment();
}

std::string Metrics::Text() const { return prometheus::TextSerializer().Serialize(impl_->registry.Collect()); }

}  // namespace kvasir::server
