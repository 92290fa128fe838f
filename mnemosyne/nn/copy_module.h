#pragma once

#include <torch/nn/module.h>

#include <optional>

namespace mnemosyne::nn {

/// What a module's `clone` does once it has made `copy` from the same options: gives it the mode
/// and own copies of all parameters and buffers of `from`, on `device` or where they are.
void copy_module(const torch::nn::Module& from, torch::nn::Module& copy,
                 const std::optional<at::Device>& device);

}  // namespace mnemosyne::nn
