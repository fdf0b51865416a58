// The GGUF parser: whatever it accepts, every byte of every tensor must be readable and every getter callable.
#include <cstdint>
#include <cstdlib>

#include "base/checked.h"
#include "base/dtype.h"
#include "io/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly the input's size, so that the sanitizer sees one byte too far.
  const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(data),
                                     reinterpret_cast<const std::byte*>(data) + size);
  const auto file = kvasir::GgufFile::Parse(bytes, "fuzz");
  if (!file.ok()) {
    if (file.status().message().empty()) std::abort();
    return 0;
  }
  unsigned sum = 0;
  for (const kvasir::RawTensor& tensor : (*file)->tensors()) {
    if ((*file)->Find(tensor.name) != &tensor) std::abort();
    const auto elements = kvasir::CheckedProduct(tensor.shape);
    if (!elements || kvasir::DTypeBytes(tensor.dtype, *elements) != tensor.bytes) std::abort();
    for (int64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
  }
  for (const auto& [key, value] : (*file)->metadata()) {
    if ((*file)->FindValue(key) != &value) std::abort();
    (void)(*file)->Int(key, -100, 100);
    (void)(*file)->Number(key);
    (void)(*file)->Bool(key);
    (void)(*file)->String(key);
    (void)(*file)->IntList(key, -100, 100);
    (void)(*file)->StringList(key);
    (void)(*file)->NumberList(key);
  }
  return sum == 0xFFFFFFFFu ? -1 : 0;  // keeps the reads
}
