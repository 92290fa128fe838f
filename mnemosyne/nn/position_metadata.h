#pragma once

#include <torch/nn/module.h>

#include <map>
#include <string>

namespace mnemosyne::nn {

/// What a weights file says of the position encodings of a model, so that `mnemosyne plot mask` and
/// whoever loads it can make them again: "position.<name of the module>" to its options as a JSON
/// object with the key "type", for each FourierPosition and DampedPosition. The same as Python's
/// `mnemosyne.nn.position_metadata`.
///
///     io::write_safetensors("lm.safetensors", weights, nn::position_metadata(*model));
std::map<std::string, std::string> position_metadata(const torch::nn::Module& model);

}  // namespace mnemosyne::nn
