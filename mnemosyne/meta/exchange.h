#pragma once

#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/meta/estimator.h"
#include "mnemosyne/meta/process_group.h"

// What is exchanged between processes, item by item: a list has a place for every item, of which
// this rank has filled in its own (`ProcessGroup::own_items`).
namespace mnemosyne::meta {

/// The contributions of all ranks, bit for bit.
std::vector<MetaGradient> all_contributions(ProcessGroup& processes,
                                            std::vector<MetaGradient> contributions);

/// Lists of numbers of all ranks.
std::vector<std::vector<double>> all_numbers(ProcessGroup& processes,
                                             std::vector<std::vector<double>> items);

/// On rank 0 the tensors of all items, one item after the other; nothing on the others.
NamedTensors gather_tensors(ProcessGroup& processes, const std::vector<NamedTensors>& items);

/// The tensors of rank 0.
NamedTensors broadcast_tensors(ProcessGroup& processes, const NamedTensors& of_root);

}  // namespace mnemosyne::meta
