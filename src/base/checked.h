// Checked integer arithmetic for every size that comes from outside.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>

namespace kvasir {

/// a + b, or nothing when it does not fit T.
template <std::integral T>
constexpr std::optional<T> CheckedAdd(T a, T b) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}

/// a * b, or nothing when it does not fit T.
template <std::integral T>
constexpr std::optional<T> CheckedMul(T a, T b) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

/// The product of non-negative dimensions, or nothing when one is negative or the product overflows int64.
inline std::optional<int64_t> CheckedProduct(std::span<const int64_t> dims) {
  int64_t product = 1;
  for (int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    const auto next = CheckedMul(product, dim);
    if (!next) return std::nullopt;
    product = *next;
  }
  return product;
}

/// a / b rounded up. REQUIRES: a >= 0, b > 0.
constexpr int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/// The smallest multiple of b that is >= a. REQUIRES: a >= 0, b > 0, the result fits.
constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

}  // namespace kvasir
