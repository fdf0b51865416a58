// What one rendering may spend: the bound that turns every endless loop and every string bomb into an error.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace kvasir::jinja {

/// Counts evaluation steps and bytes handled. Not thread-safe; one per rendering.
class Budget {
 public:
  /// fuel: steps plus bytes. max_string: bytes of the longest single string.
  Budget(uint64_t fuel, size_t max_string) : fuel_(fuel), max_string_(max_string) {}

  /// Takes `amount`; false once the budget is used up (and ever after).
  bool Spend(uint64_t amount) {
    if (amount > fuel_) {
      fuel_ = 0;
      exhausted_ = true;
    } else {
      fuel_ -= amount;
    }
    return !exhausted_;
  }

  Status Charge(uint64_t amount) { return Spend(amount) ? OkStatus() : Exhausted(); }

  Status Exhausted() const {
    return ResourceExhausted(
        "the template needs more evaluation steps than TemplateLimits::fuel allows; it loops too long or builds too "
        "much text");
  }

  size_t max_string() const { return max_string_; }

 private:
  uint64_t fuel_;
  size_t max_string_;
  bool exhausted_ = false;
};

/// Fuel for one element of a list or dict, chosen so that memory stays within a small multiple of the fuel.
inline constexpr uint64_t kElementCost = 8;

}  // namespace kvasir::jinja
