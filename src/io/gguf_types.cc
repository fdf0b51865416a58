#include "io/gguf_types.h"

#include <algorithm>
#include <array>

namespace kvasir {
namespace {

constexpr std::string_view kLater =
    "comes with the low-precision formats; until then convert the model to bf16, f16, f32, q8_0 or q4_0";
constexpr std::string_view kRemoved = "was removed from ggml; convert the original model again, to bf16, q8_0 or q4_0";

// ggml.h, enum ggml_type.
constexpr auto kTypes = std::to_array<GgmlType>({
    {0, "f32", DType::kF32, {}},      {1, "f16", DType::kF16, {}},      {2, "q4_0", DType::kQ4_0, {}},
    {3, "q4_1", {}, kLater},          {4, "q4_2", {}, kRemoved},        {5, "q4_3", {}, kRemoved},
    {6, "q5_0", {}, kLater},          {7, "q5_1", {}, kLater},          {8, "q8_0", DType::kQ8_0, {}},
    {9, "q8_1", {}, kLater},          {10, "q2_k", {}, kLater},         {11, "q3_k", {}, kLater},
    {12, "q4_k", {}, kLater},         {13, "q5_k", {}, kLater},         {14, "q6_k", {}, kLater},
    {15, "q8_k", {}, kLater},         {16, "iq2_xxs", {}, kLater},      {17, "iq2_xs", {}, kLater},
    {18, "iq3_xxs", {}, kLater},      {19, "iq1_s", {}, kLater},        {20, "iq4_nl", {}, kLater},
    {21, "iq3_s", {}, kLater},        {22, "iq2_s", {}, kLater},        {23, "iq4_xs", {}, kLater},
    {24, "i8", DType::kI8, {}},       {25, "i16", DType::kI16, {}},     {26, "i32", DType::kI32, {}},
    {27, "i64", DType::kI64, {}},     {28, "f64", DType::kF64, {}},     {29, "iq1_m", {}, kLater},
    {30, "bf16", DType::kBF16, {}},   {31, "q4_0_4_4", {}, kRemoved},   {32, "q4_0_4_8", {}, kRemoved},
    {33, "q4_0_8_8", {}, kRemoved},   {34, "tq1_0", {}, kLater},        {35, "tq2_0", {}, kLater},
    {36, "iq4_nl_4_4", {}, kRemoved}, {37, "iq4_nl_4_8", {}, kRemoved}, {38, "iq4_nl_8_8", {}, kRemoved},
    {39, "mxfp4", {}, kLater},        {40, "nvfp4", {}, kLater},        {41, "q1_0", {}, kLater},
});

}  // namespace

const GgmlType* FindGgmlType(uint32_t id) {
  const auto at = std::ranges::find(kTypes, id, &GgmlType::id);
  return at == kTypes.end() ? nullptr : &*at;
}

}  // namespace kvasir
