// What a quantisation did: sizes and errors by kind of tensor.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/dtype.h"
#include "io/json.h"

namespace kvasir::apps {

/// Sums over tensors.
struct QuantizeFigures {
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t bytes_before = 0;
  int64_t bytes_after = 0;
  double error = 0.0;              // Σ (x - rounded x)²
  double power = 0.0;              // Σ x²
  std::map<DType, int64_t> types;  // how many tensors have each

  void Add(const QuantizeFigures& other);
  double BitsPerWeight() const;
  /// sqrt(error / power), 0 for zeros.
  double RelativeRmse() const;
};

/// In the order in which kinds came.
class QuantizeReport {
 public:
  void Add(const std::string& kind, const QuantizeFigures& figures);
  std::string Table() const;
  json::object Json() const;

 private:
  QuantizeFigures Total() const;
  std::vector<std::pair<std::string, QuantizeFigures>> kinds_;
};

}  // namespace kvasir::apps
