// The one inner loop of GPTQ's blocked algorithms: a tile of C minus A times B.
#pragma once

#include <cstdint>
#include <cstring>

namespace kvasir::gptq {

/// Values in a strip's row: 32 bytes, two vectors that every processor has.
template <typename T>
inline constexpr int64_t kStripOf = 32 / static_cast<int64_t>(sizeof(T));

/// C[i][0 … strip) -= Σ_k A[i][k] · B[k][0 … strip) for i < kRows, k ascending: one chain of additions for each
/// element, whatever tile it is in. C: rows `ldc` apart; A: rows `lda` apart; B: consecutive rows of one strip.
template <typename T, int kRows>
inline void SubtractRows(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t k_count) {
  typedef T Vector __attribute__((vector_size(16)));
  constexpr int64_t kLanes = 16 / static_cast<int64_t>(sizeof(T));
  Vector sum[kRows][2];
  for (int i = 0; i < kRows; ++i) std::memcpy(sum[i], c + i * ldc, sizeof(sum[i]));
  for (int64_t k = 0; k < k_count; ++k) {
    Vector b0;
    Vector b1;
    std::memcpy(&b0, b + k * 2 * kLanes, sizeof(b0));
    std::memcpy(&b1, b + k * 2 * kLanes + kLanes, sizeof(b1));
    for (int i = 0; i < kRows; ++i) {
      const T x = a[i * lda + k];
      sum[i][0] -= b0 * x;
      sum[i][1] -= b1 * x;
    }
  }
  for (int i = 0; i < kRows; ++i) std::memcpy(c + i * ldc, sum[i], sizeof(sum[i]));
}

/// The same for any number of rows.
template <typename T>
void SubtractStrip(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t rows, int64_t k_count) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) SubtractRows<T, 4>(c + i * ldc, ldc, a + i * lda, lda, b, k_count);
  for (; i < rows; ++i) SubtractRows<T, 1>(c + i * ldc, ldc, a + i * lda, lda, b, k_count);
}

}  // namespace kvasir::gptq
