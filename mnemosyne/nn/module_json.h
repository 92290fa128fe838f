#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>

namespace mnemosyne::nn {

/// The attention or position that a JSON text describes, `{"type": "DampedPosition", "arguments":
/// [{"num_heads": 4, "seed": 1}]}`: its options, and for attention the position as a second object
/// with a type of its own, or null. As Python's modules describe themselves.
///
/// InputError for what is no such text, and for options that the module does not have.
std::shared_ptr<torch::nn::Module> module_of_json(const std::string& text);

}  // namespace mnemosyne::nn
