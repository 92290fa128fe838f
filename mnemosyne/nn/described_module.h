#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/nn/functional_call.h"

namespace mnemosyne::nn {

/// What an operator knows of a module: its options as a text (`module_of_json`). Its tensors are
/// arguments of the operator, so that programs that are traced, exported and loaded elsewhere have
/// them as their own.
struct DescribedModule {
  FunctionalModule module;
  /// Of the tensors that a call takes: all parameters, then all buffers, without those of layers
  /// (`Dense`, `Norm`), which the caller applies.
  std::vector<size_t> places;
  /// Whether the numbers of the input decide what is computed: a FourierPosition without extent.
  bool follows_input = false;
};

/// The module of a description, made at its first use; the last 1024 of them are kept.
std::shared_ptr<const DescribedModule> described_module(const std::string& description);

/// The dotted names of the tensors that are not those of layers: parameters, then buffers.
std::vector<std::string> names_without_layers(const torch::nn::Module& module);

}  // namespace mnemosyne::nn
