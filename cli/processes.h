#pragma once

#include <memory>

#include "mnemosyne/meta/config.h"
#include "mnemosyne/meta/process_group.h"

namespace mnemosyne::cli {

/// What torchrun tells the processes that it starts, by the variables of torch's `env://`.
struct Launch {
  meta::ProcessGroupOptions group = {};
  int64_t local_rank = 0;  ///< Among the processes of this machine,
  int64_t local_size = 1;  ///< of which there are so many.
};

/// RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, with those that torchrun sets beside them; one
/// process where neither of the first two is set. InputError that names a variable that is missing
/// or no number.
Launch read_launch();

/// The configuration with this process's share of its machine: of the cores where num_workers is 0,
/// and a GPU of its own where the device is just "cuda".
meta::MetaConfig on_this_machine(meta::MetaConfig config, const Launch& launch);

}  // namespace mnemosyne::cli
