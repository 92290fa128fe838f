#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mnemosyne/tasks/data/molecule_data.h"

namespace mnemosyne::tasks {

/// QM7 with geometries as distributed with QML (github.com/qmlcode/qml): one XYZ file a molecule,
/// in `folder`, in `folder`/qm7, or in `folder`/qm7.tar, .tar.gz or .tar.xz, and hof_qm7.txt with
/// "file energy" (kcal/mol) a line, whose first energy is taken. Files "._NAME", which a Mac puts
/// beside others, are passed over. Molecules are put in a fixed
/// random order; the first are for training, the last fifth, at most 1,000, for testing; the tenth
/// before them, at most 500, is in neither part, to choose settings by: 5,601 / 500 / 1,000 of
/// 7,101.
///
/// InputError that names the file for a molecule without an energy, an energy without a molecule, a
/// name that comes twice, or fewer than 10 molecules.
MoleculeData read_qm7(const std::string& folder, const std::vector<int64_t>& elements);

/// Moments of one molecule's motion as in the revised MD17 (Christensen and von Lilienfeld, arXiv
/// 2007.09593), as extended XYZ with an energy each: the one file in `folder` whose name ends in
/// train.xyz and the one that ends in test.xyz, either plain or with .gz or .xz behind.
MoleculeData read_rmd17(const std::string& folder, const std::vector<int64_t>& elements);

}  // namespace mnemosyne::tasks
