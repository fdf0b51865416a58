#include "io/foreign.h"

#include <fmt/format.h>

#include <string_view>

namespace kvasir {
namespace {

/// `text` as one word for a POSIX shell.
std::string ShellQuote(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

}  // namespace

FileKind GuessFileKind(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("GGUF")) return FileKind::kGguf;
  // Magic numbers of the formats before GGUF, as they lie in little-endian files.
  if (text.starts_with("lmgg") || text.starts_with("fmgg") || text.starts_with("tjgg") || text.starts_with("algg")) {
    return FileKind::kOldGgml;
  }
  const bool pickle = text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5;
  if (pickle || text.starts_with("PK\x03\x04")) return FileKind::kPyTorch;  // or, since 2020, a zip of pickles
  if (text.starts_with("version https://git-lfs")) return FileKind::kGitLfsPointer;
  if (text.starts_with("<!DOCTYPE") || text.starts_with("<!doctype") || text.starts_with("<html")) {
    return FileKind::kHtml;
  }
  return FileKind::kUnknown;
}

bool HasPyTorchName(const std::filesystem::path& file) {
  const std::string extension = file.extension().string();
  return extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt";
}

std::string ConvertCommand(const std::filesystem::path& folder) {
  const std::string name = folder.empty() ? "." : folder.lexically_normal().string();
  return fmt::format(
      "python3 -c \"import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; d, o = "
      "sys.argv[1:]; M.from_pretrained(d, torch_dtype='auto').save_pretrained(o, safe_serialization=True); "
      "T.from_pretrained(d).save_pretrained(o)\" {} {}",
      ShellQuote(name), ShellQuote((name.ends_with('/') ? name.substr(0, name.size() - 1) : name) + "-safetensors"));
}

std::string ForeignHint(FileKind kind, const std::filesystem::path& file) {
  switch (kind) {
    case FileKind::kUnknown: return {};
    case FileKind::kGguf: return "it is a GGUF file; give it an ending .gguf";
    case FileKind::kOldGgml:
      return "it is a GGML file from before GGUF; convert the original model again with llama.cpp's converter";
    case FileKind::kPyTorch:
      return fmt::format(
          "it is a PyTorch checkpoint, which can run code when it is read; convert its folder to safetensors: {}",
          ConvertCommand(file.parent_path()));
    case FileKind::kGitLfsPointer:
      return "it is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder";
    case FileKind::kHtml: return "it is a web page, not the file itself; download it again";
  }
  return {};
}

}  // namespace kvasir
