#pragma once

#include <map>
#include <string>
#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::meta {

/// Adds `part` to `tensors`, each name behind `prefix`.
void append(NamedTensors& tensors, const std::string& prefix, const NamedTensors& part);

/// Copies of a list or of an optimizer's state, called prefix + "0" or prefix + "0.0" and so on.
void append(NamedTensors& tensors, const std::string& prefix, const std::vector<at::Tensor>& list);
void append(NamedTensors& tensors, const std::string& prefix, const optim::State& state);

/// The tensors whose names begin with `prefix`, without it.
NamedTensors select(const NamedTensors& tensors, const std::string& prefix);

bool contains(const NamedTensors& tensors, const std::string& name);

/// The tensor called `name`; InputError when it is missing or has another dtype or shape.
at::Tensor find_checked(const NamedTensors& tensors, const std::string& name, at::ScalarType dtype,
                        at::IntArrayRef sizes);

/// What `append` added of a list or state with the dtypes, shapes and devices of `like`, as copies.
/// InputError where it is not that.
std::vector<at::Tensor> find_alike(const NamedTensors& tensors, const std::string& prefix,
                                   const std::vector<at::Tensor>& like);
optim::State find_alike(const NamedTensors& tensors, const std::string& prefix,
                        const optim::State& like);

/// The weights of a learned rule as one vector [N] without gradients; InputError when it has none.
at::Tensor flatten_learned(const optim::UpdateRule& rule);

/// The one file format of what is to be continued or read back, of training, meta-training and
/// comparison: safetensors with what was run in its metadata, and a checksum of names and numbers
/// beside that. Written beside and renamed.
void save_checkpoint(const std::string& path, const NamedTensors& tensors,
                     std::map<std::string, std::string> metadata);

/// Such a file. InputError, one line that names it, when it is damaged: when its numbers are not
/// those of its checksum, a damaged one would otherwise be trained on. Files that earlier versions
/// wrote without one are taken as they are.
io::TensorFile load_checkpoint(const std::string& path);

/// The same of the run that `expected` tells of. InputError when one of its keys has another value
/// in the file, which for one that the file does not have is "".
io::TensorFile load_checkpoint(const std::string& path,
                               const std::map<std::string, std::string>& expected);

}  // namespace mnemosyne::meta
