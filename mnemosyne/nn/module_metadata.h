#pragma once

#include <torch/nn/module.h>

#include <map>
#include <string>

namespace mnemosyne::nn {

/// What a weights file says of the position encodings of a model, so that `mnemosyne plot mask` and
/// whoever loads it can make them again: "position.<name of the module>" to its options as a JSON
/// object with the key "type", for each FourierPosition and DampedPosition. The same as Python's
/// `mnemosyne.nn.position_metadata`.
std::map<std::string, std::string> position_metadata(const torch::nn::Module& model);

/// The same, and for a CausalLM, a ViT or a PointEncoder what it takes to make the module again
/// from a file of its parameters and buffers (Python's `mnemosyne.nn.load`): "module" to JSON
/// `{"type": "ViT", "arguments": [options, attention]}`.
///
///     io::write_safetensors("lm.safetensors", tensors, nn::module_metadata(*model));
std::map<std::string, std::string> module_metadata(const torch::nn::Module& module);

}  // namespace mnemosyne::nn
