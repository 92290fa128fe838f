#pragma once

#include <map>
#include <string>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::meta {

/// Adds `part` to `tensors`, each name behind `prefix`.
void append(NamedTensors& tensors, const std::string& prefix, const NamedTensors& part);

/// The tensors whose names begin with `prefix`, without it.
NamedTensors select(const NamedTensors& tensors, const std::string& prefix);

bool contains(const NamedTensors& tensors, const std::string& name);

/// The tensor called `name`; InputError when it is missing or has another dtype or shape.
at::Tensor find_checked(const NamedTensors& tensors, const std::string& name, at::ScalarType dtype,
                        at::IntArrayRef sizes);

/// The weights of a learned rule as one vector [N] without gradients; InputError when it has none.
at::Tensor flatten_learned(const optim::UpdateRule& rule);

/// A safetensors file with what was trained in its metadata, written beside and renamed.
void save_checkpoint(const std::string& path, const NamedTensors& tensors,
                     const std::map<std::string, std::string>& metadata);

/// The tensors of such a file. InputError when a key of `expected` is there with another value: a
/// checkpoint of another meta-training is no start for this one.
NamedTensors load_checkpoint(const std::string& path,
                             const std::map<std::string, std::string>& expected);

}  // namespace mnemosyne::meta
