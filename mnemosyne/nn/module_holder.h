#pragma once

#include <torch/nn/pimpl.h>

#include <memory>

/// Defines module Name as TORCH_MODULE does, which besides takes NameOptions in braces:
/// `nn::CausalLM model({.vocabulary = 65})`.
#define MN_MODULE(Name)                                                     \
  class Name : public torch::nn::ModuleHolder<Name##Impl> {                 \
   public:                                                                  \
    using torch::nn::ModuleHolder<Name##Impl>::ModuleHolder;                \
    using Impl = Name##Impl;                                                \
    explicit Name(const Name##Options& options)                             \
        : torch::nn::ModuleHolder<Impl>(std::make_shared<Impl>(options)) {} \
  }
