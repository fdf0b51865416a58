// For tests: the committed tokenizers and what Hugging Face's libraries do with the committed strings.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/test_paths.h"
#include "io/gguf.h"
#include "text/tokenizer.h"

namespace kvasir {

inline std::filesystem::path TokenizerFixtures() { return std::filesystem::path(kFixtures) / "tokenizers"; }

/// The folder of data that is not committed, or empty.
inline std::filesystem::path TestData() {
  const char* data = std::getenv("KVASIR_TEST_DATA");
  return data == nullptr ? "" : data;
}

inline std::string Slurp(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in.good()) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline uint32_t LittleEndian32(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= static_cast<uint32_t>(static_cast<uint8_t>(bytes.at(at + i))) << (8 * i);
  return value;
}

/// The strings of strings.bin.
inline std::vector<std::string> FixtureStrings() {
  const std::string bytes = Slurp(TokenizerFixtures() / "strings.bin");
  std::vector<std::string> strings;
  for (size_t at = 0; at < bytes.size();) {
    const uint32_t length = LittleEndian32(bytes, at);
    strings.push_back(bytes.substr(at + 4, length));
    at += 4 + length;
  }
  return strings;
}

inline uint32_t Crc32(const std::string& bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

inline std::string IdBytes(const std::vector<TokenId>& ids) {
  std::string bytes;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(static_cast<uint32_t>(id) >> shift);
  }
  return bytes;
}

/// Loads a folder, a file or a GGUF.
inline Result<std::unique_ptr<Tokenizer>> LoadAny(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return LoadTokenizer(path);
  if (path.extension() != ".gguf") return LoadTokenizerFile(path);
  auto file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  return LoadTokenizer(**file);
}

inline std::string Streamed(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, DecodeOptions options) {
  StreamDecoder decoder(tokenizer, options);
  std::string text;
  for (const TokenId id : ids) {
    const auto part = decoder.Push(id);
    EXPECT_TRUE(part.ok());
    if (part.ok()) text += *part;
  }
  return text + decoder.Flush();
}

/// Every string must give the expected ids and texts; streaming the same texts.
inline void ExpectParity(const Tokenizer& tokenizer, const std::filesystem::path& expected_file) {
  const std::vector<std::string> strings = FixtureStrings();
  const std::string expected = Slurp(expected_file);
  ASSERT_GE(strings.size(), 2000u);
  ASSERT_EQ(expected.size(), strings.size() * 12);
  int failures = 0;
  for (size_t i = 0; i < strings.size() && failures < 5; ++i) {
    const auto ids = tokenizer.Encode(strings[i]);
    ASSERT_TRUE(ids.ok()) << ids.status().message();
    if (Crc32(IdBytes(*ids)) != LittleEndian32(expected, 12 * i)) {
      ++failures;
      ADD_FAILURE() << "ids differ for string " << i << ": " << ::testing::PrintToString(strings[i]) << "\n"
                    << ::testing::PrintToString(*ids);
      continue;
    }
    for (const bool skip : {true, false}) {
      const DecodeOptions options{.skip_special = skip};
      const auto text = tokenizer.Decode(*ids, options);
      ASSERT_TRUE(text.ok()) << text.status().message();
      EXPECT_EQ(Streamed(tokenizer, *ids, options), *text);
      const uint32_t wanted = LittleEndian32(expected, 12 * i + (skip ? 4 : 8));
      if (wanted == 0xFFFFFFFFu || Crc32(*text) == wanted) continue;
      ++failures;
      ADD_FAILURE() << "text differs for string " << i << " (skip_special " << skip
                    << "): " << ::testing::PrintToString(strings[i]) << "\n"
                    << ::testing::PrintToString(*text);
    }
  }
}

}  // namespace kvasir
