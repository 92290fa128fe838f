#pragma once

#include <string>

#include "mnemosyne/tasks/data/row_data.h"

namespace mnemosyne::tasks {

/// Characters of SMILES that a row counts.
inline constexpr std::string_view kCountedInSmiles = "CcNnOoSsFPIlr=#()[]+-123";

/// The table of ESOL (Delaney, J. Chem. Inf. Comput. Sci. 2004) as MoleculeNet publishes it, a CSV
/// with a header: of every molecule minimum degree, molecular weight, donors of hydrogen bonds,
/// rings, rotatable bonds and polar surface area, and how often each of `kCountedInSmiles` stands
/// in its SMILES; the target is its measured log solubility. Each is of mean zero and standard
/// deviation one over the training part. Every tenth row is held out. InputError that names file
/// and line for anything else.
RowData read_solubility(const std::string& path);

}  // namespace mnemosyne::tasks
