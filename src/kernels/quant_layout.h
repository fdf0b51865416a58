// How block formats stand in packed panels. Constants and arithmetic only: included by every instruction set's files.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

/// The 16 values of a code, for formats whose codes are no plain numbers.
enum class CodeTable : uint8_t { kNone, kIq4, kMxfp4 };

/// How a block's scale is stored.
enum class ScaleKind : uint8_t {
  kF16,           // fp16 for each block
  kSuper,         // int8 for each block, times an fp16 for the whole record
  kSuperNibbles,  // the same with 4 bits (the low ones; the high ones are the block's minimum)
  kE8M0,          // 2^(byte - 128) for each block
};

/// A panel of a block format is a row of records, each 16 rows × record_k consecutive inputs. In a record stand, one
/// after another, as far as the format has them:
///   nibbles: 64-byte lines of 16 rows × 4 inputs, the low halves k … k+3, the high halves the next four
///   pairs:   the same with four groups of four inputs in the bits 0–1, 2–3, 4–5, 6–7
///   bits:    the same with eight groups, one bit each
///   bytes:   the same with one group
///   scales of each block [blocks][16 rows], then minima likewise (kF16: fp16, else bytes)
///   kSuper…: the record's fp16 scales [16 rows], then those of its minima
/// and zeros to a multiple of 64 bytes. A code is nibble | pair << 4 | bit << 4 (or bit << 2 beside pairs alone).
/// value = scale · (u - zero) - minimum, where u is the code or table[code] + zero (kF16: + minimum).
struct QuantLayout {
  int32_t record_k = 0;
  int32_t block_k = 32;
  bool nibbles = false;
  bool pairs = false;
  bool bits = false;
  bool bytes = false;
  int32_t zero = 0;
  ScaleKind scale = ScaleKind::kF16;
  bool minima = false;
  CodeTable table = CodeTable::kNone;

  constexpr int32_t blocks() const { return record_k / block_k; }
  constexpr int32_t lines_per_block() const { return block_k / 4; }
  // Byte offsets inside a record.
  constexpr int32_t pairs_at() const { return nibbles ? record_k * 8 : 0; }
  constexpr int32_t bits_at() const { return pairs_at() + (pairs ? record_k * 4 : 0); }
  constexpr int32_t bytes_at() const { return bits_at() + (bits ? record_k * 2 : 0); }
  constexpr int32_t scales_at() const { return bytes_at() + (bytes ? record_k * 16 : 0); }
  constexpr int32_t scale_bytes() const { return scale == ScaleKind::kF16 ? 32 : 16; }  // of a block
  constexpr bool minima_apart() const { return minima && scale != ScaleKind::kSuperNibbles; }
  constexpr int32_t minima_at() const { return scales_at() + blocks() * scale_bytes(); }
  constexpr int32_t super_at() const { return minima_at() + (minima_apart() ? blocks() * scale_bytes() : 0); }
  constexpr bool super() const { return scale == ScaleKind::kSuper || scale == ScaleKind::kSuperNibbles; }
  constexpr int32_t record_bytes() const { return (super_at() + (super() ? (minima ? 64 : 32) : 0) + 63) / 64 * 64; }
  /// Codes need eight bits, so that a product of two pairs may exceed 16.
  constexpr bool wide() const { return bytes || table == CodeTable::kIq4; }
};

// The formats, by their names in GGUF.
inline constexpr QuantLayout kQ8_0Layout{.record_k = 64, .bytes = true, .zero = 128};
inline constexpr QuantLayout kQ4_0Layout{.record_k = 64, .nibbles = true, .zero = 8};
inline constexpr QuantLayout kQ4_1Layout{.record_k = 64, .nibbles = true, .minima = true};
inline constexpr QuantLayout kQ5_0Layout{.record_k = 64, .nibbles = true, .bits = true, .zero = 16};
inline constexpr QuantLayout kQ5_1Layout{.record_k = 64, .nibbles = true, .bits = true, .minima = true};
inline constexpr QuantLayout kQ2_KLayout{
    .record_k = 256, .block_k = 16, .pairs = true, .scale = ScaleKind::kSuperNibbles, .minima = true};
inline constexpr QuantLayout kQ3_KLayout{
    .record_k = 256, .block_k = 16, .pairs = true, .bits = true, .zero = 4, .scale = ScaleKind::kSuper};
inline constexpr QuantLayout kQ4_KLayout{.record_k = 256, .nibbles = true, .scale = ScaleKind::kSuper, .minima = true};
inline constexpr QuantLayout kQ5_KLayout{
    .record_k = 256, .nibbles = true, .bits = true, .scale = ScaleKind::kSuper, .minima = true};
inline constexpr QuantLayout kQ6_KLayout{
    .record_k = 256, .block_k = 16, .nibbles = true, .pairs = true, .zero = 32, .scale = ScaleKind::kSuper};
inline constexpr QuantLayout kIq4NlLayout{.record_k = 64, .nibbles = true, .zero = 128, .table = CodeTable::kIq4};
inline constexpr QuantLayout kIq4XsLayout{
    .record_k = 256, .nibbles = true, .zero = 128, .scale = ScaleKind::kSuper, .table = CodeTable::kIq4};
inline constexpr QuantLayout kMxfp4Layout{
    .record_k = 128, .nibbles = true, .zero = 12, .scale = ScaleKind::kE8M0, .table = CodeTable::kMxfp4};

/// Activations are rounded to eight bits with one scale for so many consecutive inputs of a token.
inline constexpr int32_t kActivationChunk = 256;

// table[code] + zero.
inline constexpr uint8_t kIq4Codes[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
inline constexpr uint8_t kMxfp4Codes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

}  // namespace kvasir
