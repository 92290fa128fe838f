#pragma once

#include <memory>
#include <string>

#include "mnemosyne/tasks/data/molecule_data.h"
#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

struct MoleculeTaskOptions {
  int64_t batch_size = 32;
  int64_t validation_size = 1000;  ///< At most so many test molecules.
};

/// Predicting energies: mean absolute error of the model's outputs [P,B,1] against `targets`, of
/// which the deviation is one, so that outputs of zero cost about .8. Times `energy_scale` of the
/// data it is the error in the unit of the files. Batches are {atoms [B,N,4] as
/// `MoleculeSet::atoms` gives them, targets [B]}, float32.
std::shared_ptr<const Task> make_molecule_task(std::string name, std::shared_ptr<const Model> model,
                                               std::shared_ptr<const MoleculeData> data,
                                               const MoleculeTaskOptions& options = {});

}  // namespace mnemosyne::tasks
