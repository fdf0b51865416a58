// What a file is that is not what was expected, and what to do about it; so that messages help.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace kvasir {

enum class FileKind { kUnknown, kGguf, kOldGgml, kPyTorch, kGitLfsPointer, kHtml };

/// Judges by the first bytes.
FileKind GuessFileKind(std::span<const std::byte> bytes);

/// True for the endings of PyTorch checkpoints: .bin, .pt, .pth, .ckpt.
bool HasPyTorchName(const std::filesystem::path& file);

/// The shell command that converts the Hugging Face folder with PyTorch weights to one with safetensors.
std::string ConvertCommand(const std::filesystem::path& folder);

/// "it is … ; do …" for a kind that is not kUnknown, for messages about `file`; empty for kUnknown.
std::string ForeignHint(FileKind kind, const std::filesystem::path& file);

}  // namespace kvasir
