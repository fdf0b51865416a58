#include "io/gguf_types.h"

#include <algorithm>
#include <array>

namespace kvasir {
namespace {

constexpr std::string_view kUnread =
    "is not one that kvasir reads; convert the original model again, to q8_0, q6_k, q5_k, q4_k, iq4_xs, bf16 or f16";
constexpr std::string_view kRemoved = "was removed from ggml; convert the original model again, to bf16, q8_0 or q4_0";

// ggml.h, enum ggml_type.
constexpr auto kTypes = std::to_array<GgmlType>({
    {0, "f32", DType::kF32, {}},      {1, "f16", DType::kF16, {}},      {2, "q4_0", DType::kQ4_0, {}},
    {3, "q4_1", DType::kQ4_1, {}},    {4, "q4_2", {}, kRemoved},        {5, "q4_3", {}, kRemoved},
    {6, "q5_0", DType::kQ5_0, {}},    {7, "q5_1", DType::kQ5_1, {}},    {8, "q8_0", DType::kQ8_0, {}},
    {9, "q8_1", {}, kUnread},         {10, "q2_k", DType::kQ2_K, {}},   {11, "q3_k", DType::kQ3_K, {}},
    {12, "q4_k", DType::kQ4_K, {}},   {13, "q5_k", DType::kQ5_K, {}},   {14, "q6_k", DType::kQ6_K, {}},
    {15, "q8_k", {}, kUnread},        {16, "iq2_xxs", {}, kUnread},     {17, "iq2_xs", {}, kUnread},
    {18, "iq3_xxs", {}, kUnread},     {19, "iq1_s", {}, kUnread},       {20, "iq4_nl", DType::kIQ4_NL, {}},
    {21, "iq3_s", {}, kUnread},       {22, "iq2_s", {}, kUnread},       {23, "iq4_xs", DType::kIQ4_XS, {}},
    {24, "i8", DType::kI8, {}},       {25, "i16", DType::kI16, {}},     {26, "i32", DType::kI32, {}},
    {27, "i64", DType::kI64, {}},     {28, "f64", DType::kF64, {}},     {29, "iq1_m", {}, kUnread},
    {30, "bf16", DType::kBF16, {}},   {31, "q4_0_4_4", {}, kRemoved},   {32, "q4_0_4_8", {}, kRemoved},
    {33, "q4_0_8_8", {}, kRemoved},   {34, "tq1_0", {}, kUnread},       {35, "tq2_0", {}, kUnread},
    {36, "iq4_nl_4_4", {}, kRemoved}, {37, "iq4_nl_4_8", {}, kRemoved}, {38, "iq4_nl_8_8", {}, kRemoved},
    {39, "mxfp4", DType::kMXFP4, {}}, {40, "nvfp4", {}, kUnread},       {41, "q1_0", {}, kUnread},
});

}  // namespace

const GgmlType* FindGgmlType(uint32_t id) {
  const auto at = std::ranges::find(kTypes, id, &GgmlType::id);
  return at == kTypes.end() ? nullptr : &*at;
}

std::optional<uint32_t> FindGgmlTypeId(DType type) {
  const auto at = std::ranges::find(kTypes, std::optional(type), &GgmlType::dtype);
  return at == kTypes.end() ? std::nullopt : std::optional(at->id);
}

}  // namespace kvasir
