#pragma once

#include <map>
#include <string>
#include <string_view>

#include "mnemosyne/core/named_tensors.h"

namespace mnemosyne::io {

/// The content of a safetensors file: tensors in the order of its header, and free text by key.
struct TensorFile {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads a safetensors file (https://github.com/huggingface/safetensors, format 1): float64,
/// float32, float16, bfloat16, int64 to int8, uint8 and bool tensors on the CPU, which own their
/// memory.
///
/// InputError with one line that names the file, what was expected and what was found, for anything
/// that is not a complete, well-formed file; nothing is allocated beyond the file's own size.
///
///     const auto file = io::read_safetensors("weights.safetensors");
///     const at::Tensor& w = find(file.tensors, "head.weight");
TensorFile read_safetensors(const std::string& path);

/// The same from bytes in memory; `name_for_errors` stands where the file's name would.
TensorFile parse_safetensors(std::string_view bytes, const std::string& name_for_errors);

/// Writes a safetensors file beside `path` and renames it (see `write_file`). The tensors may live
/// anywhere and have any strides. InputError for a dtype that the format does not have, for a name
/// that stands twice and for the name "__metadata__".
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// The bytes of such a file, for `parse_safetensors`.
std::string format_safetensors(const NamedTensors& tensors,
                               const std::map<std::string, std::string>& metadata = {});

}  // namespace mnemosyne::io
