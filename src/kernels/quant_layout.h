// How block formats stand in packed panels. Constants and arithmetic only: included by every instruction set's files.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

/// What codes stand for that are no plain numbers: one of 16 integers, or an eight-bit float.
enum class CodeTable : uint8_t { kNone, kIq4, kMxfp4, kNf4, kFp4, kE4M3, kE5M2 };

/// How a block's scale is stored.
enum class ScaleKind : uint8_t {
  kF16,           // fp16 for each block
  kSuper,         // int8 for each block, times an fp16 for the whole record
  kSuperNibbles,  // the same with 4 bits (the low ones; the high ones are the block's minimum)
  kE8M0,          // 2^(byte - 128) for each block
  kF32,           // fp32 for each block
};

/// Inputs whose codes stand together in a record.
inline constexpr int32_t kUnitInputs = 32;

/// A panel of a block format is a row of records, each 16 rows × record_k consecutive inputs. A record begins with, as
/// far as the format has them,
///   scales of each block [blocks][16 rows], then minima likewise (kF16: fp16, kF32: fp32, else bytes)
///   kSuper…: the record's fp16 scales [16 rows], then those of its minima
/// and zeros to a multiple of 64 bytes; then come units of 32 inputs, one after another, each of
///   nibbles: 64-byte lines of 16 rows × 4 inputs, the low halves k … k+3, the high halves the next four
///   pairs:   the same with four groups of four inputs in the bits 0–1, 2–3, 4–5, 6–7
///   bits:    the same with eight groups, one bit each
///   bytes:   the same with one group
/// so that kernels read memory strictly in order, which processors fetch ahead best. A code is nibble | pair << 4 |
/// bit << 4 (or bit << 2 beside pairs alone).
/// value = scale · (u - zero) - minimum, where u is the code or table[code] + zero (kF16: + minimum; scale: times
/// `unit`). What kernels ask of a layout is constant once it is inlined, which sanitizers must not keep from happening.
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
  float unit = 1.0f;  // kF16: what stored scales are multiplied with

  [[gnu::always_inline]] constexpr int32_t blocks() const { return record_k / block_k; }
  constexpr int32_t lines_per_block() const { return block_k / 4; }
  // Byte offsets inside a record.
  constexpr int32_t scales_at() const { return 0; }
  [[gnu::always_inline]] constexpr int32_t scale_bytes() const {  // of a block
    return scale == ScaleKind::kF32 ? 64 : scale == ScaleKind::kF16 ? 32 : 16;
  }
  [[gnu::always_inline]] constexpr bool minima_apart() const { return minima && scale != ScaleKind::kSuperNibbles; }
  [[gnu::always_inline]] constexpr int32_t minima_at() const { return blocks() * scale_bytes(); }
  [[gnu::always_inline]] constexpr int32_t super_at() const {
    return minima_at() + (minima_apart() ? blocks() * scale_bytes() : 0);
  }
  [[gnu::always_inline]] constexpr bool super() const {
    return scale == ScaleKind::kSuper || scale == ScaleKind::kSuperNibbles;
  }
  [[gnu::always_inline]] constexpr int32_t header_bytes() const {  // all of the above
    return (super_at() + (super() ? (minima ? 64 : 32) : 0) + 63) / 64 * 64;
  }
  [[gnu::always_inline]] constexpr int32_t unit_at(int32_t i) const { return header_bytes() + i * unit_bytes(); }
  [[gnu::always_inline]] constexpr int32_t record_bytes() const { return unit_at(record_k / kUnitInputs); }
  // Byte offsets inside a unit.
  [[gnu::always_inline]] constexpr int32_t pairs_at() const { return nibbles ? 256 : 0; }
  [[gnu::always_inline]] constexpr int32_t bits_at() const { return pairs_at() + (pairs ? 128 : 0); }
  [[gnu::always_inline]] constexpr int32_t bytes_at() const { return bits_at() + (bits ? 64 : 0); }
  [[gnu::always_inline]] constexpr int32_t unit_bytes() const { return bytes_at() + (bytes ? 512 : 0); }
  /// Codes need eight bits, so that a sum of two products may exceed 16.
  constexpr bool wide() const {
    return bytes || table == CodeTable::kIq4 || table == CodeTable::kNf4 || table == CodeTable::kFp4;
  }
  constexpr int32_t codes() const {  // how many there are
    return bytes ? 256 : (nibbles ? 16 : pairs ? 4 : 1) << ((nibbles && pairs ? 2 : 0) + (bits ? 1 : 0));
  }
  /// Prompts go much faster where values are rounded to kRoundedLayout: scales for few inputs, each with a product.
  constexpr bool rounds() const { return super() && (minima || block_k < kUnitInputs); }
  /// Products are of floats, not of integers.
  constexpr bool float8() const { return table == CodeTable::kE4M3 || table == CodeTable::kE5M2; }
  /// Activations beyond kInt8Threshold are left out of the rounding (LLM.int8).
  constexpr bool threshold() const { return scale == ScaleKind::kF32 && !float8(); }
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

// The rest, by the types of quant/coded_blocks.h. The tables' integers are the nearest to `1 / unit` times the values.
inline constexpr QuantLayout kNf4Layout{
    .record_k = 128, .block_k = 64, .nibbles = true, .zero = 128, .table = CodeTable::kNf4, .unit = 1.0f / 112.03f};
inline constexpr QuantLayout kFp4Layout{
    .record_k = 128, .block_k = 64, .nibbles = true, .zero = 128, .table = CodeTable::kFp4, .unit = 1.0f / 120.0f};
inline constexpr QuantLayout kInt8Layout{
    .record_k = 256, .block_k = 256, .bytes = true, .zero = 128, .scale = ScaleKind::kF32};
inline constexpr QuantLayout kInt8G128Layout{
    .record_k = 128, .block_k = 128, .bytes = true, .zero = 128, .minima = true};
inline constexpr QuantLayout kInt4G128Layout{
    .record_k = 128, .block_k = 128, .nibbles = true, .zero = 8, .minima = true};
inline constexpr QuantLayout kInt3G128Layout{
    .record_k = 128, .block_k = 128, .pairs = true, .bits = true, .zero = 4, .minima = true};
inline constexpr QuantLayout kInt2G128Layout{.record_k = 128, .block_k = 128, .pairs = true, .zero = 2, .minima = true};
inline constexpr QuantLayout kInt8G32Layout{.record_k = 64, .bytes = true, .zero = 128, .minima = true};
inline constexpr QuantLayout kInt4G32Layout{.record_k = 64, .nibbles = true, .zero = 8, .minima = true};
inline constexpr QuantLayout kInt3G32Layout{.record_k = 64, .pairs = true, .bits = true, .zero = 4, .minima = true};
inline constexpr QuantLayout kInt2G32Layout{.record_k = 64, .pairs = true, .zero = 2, .minima = true};
inline constexpr QuantLayout kE4M3Layout{
    .record_k = 128, .block_k = 128, .bytes = true, .scale = ScaleKind::kF32, .table = CodeTable::kE4M3};
inline constexpr QuantLayout kE5M2Layout{
    .record_k = 128, .block_k = 128, .bytes = true, .scale = ScaleKind::kF32, .table = CodeTable::kE5M2};

/// What values of layouts that round() become for many tokens; never stored.
inline constexpr QuantLayout kRoundedLayout{.record_k = 128, .block_k = 128, .bytes = true, .zero = 128};

/// Activations are rounded to eight bits with one scale for so many consecutive inputs of a token.
inline constexpr int32_t kActivationChunk = 256;
/// Of each token's chunk at most so many activations are left out of the rounding, which they would spoil for all
/// others: they multiply the weights in fp32. They are those larger than 1/kOutlierGap of the largest, where these are
/// no more; repeated on what is left; and, for threshold() formats, the largest of those beyond kInt8Threshold.
inline constexpr int kMaxOutliers = 4;
inline constexpr float kOutlierGap = 8.0f;
inline constexpr float kInt8Threshold = 6.0f;

// table[code] + zero.
inline constexpr uint8_t kIq4Codes[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
inline constexpr uint8_t kMxfp4Codes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

inline constexpr uint8_t kNf4Codes[16] = {16, 50, 69, 84, 96, 107, 118, 128, 137, 146, 156, 166, 177, 191, 209, 240};
inline constexpr uint8_t kFp4Codes[16] = {128, 129, 208, 248, 168, 188, 148, 158, 128, 127, 48, 8, 88, 68, 108, 98};

constexpr const uint8_t* TableCodes(CodeTable table) {
  switch (table) {
    case CodeTable::kIq4: return kIq4Codes;
    case CodeTable::kMxfp4: return kMxfp4Codes;
    case CodeTable::kNf4: return kNf4Codes;
    case CodeTable::kFp4: return kFp4Codes;
    default: return nullptr;
  }
}

}  // namespace kvasir
