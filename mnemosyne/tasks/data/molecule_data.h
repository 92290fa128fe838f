#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mnemosyne/tasks/data/xyz.h"

namespace mnemosyne::tasks {

/// Molecules of any sizes one behind the other, with an energy each.
class MoleculeSet {
 public:
  /// Atoms become types 0, 1, ... by their place in `elements` (atomic numbers).
  explicit MoleculeSet(std::vector<int64_t> elements) : elements_(std::move(elements)) {}

  /// InputError that names `place` for an element that is not in the list.
  void add(const XyzFrame& frame, double energy, const std::string& place);

  int64_t size() const { return static_cast<int64_t>(energies_.size()); }

  /// Molecules [B] as one tensor [B,N,4], N = atoms of the largest of them: type, x, y, z; type -1
  /// where there is no atom.
  at::Tensor atoms(const std::vector<int64_t>& molecules) const;

  /// How many atoms of each element, [B,E], float64; E = elements.
  at::Tensor compositions(const std::vector<int64_t>& molecules) const;

  /// Energies [B], float64.
  at::Tensor energies(const std::vector<int64_t>& molecules) const;

 private:
  std::vector<int64_t> elements_;
  std::vector<float> atoms_;          // 4 numbers an atom
  std::vector<int64_t> first_ = {0};  // where a molecule's atoms start, and the end
  std::vector<double> energies_;
};

/// A set of molecules in two parts: which are for training, which for testing.
struct MoleculeData {
  MoleculeSet molecules;
  std::vector<int64_t> train, test;
  /// [1+E], float64: what a molecule, and each of its atoms by element, adds to the energy, fitted
  /// to the training energies by least squares.
  at::Tensor composition_energies{};
  double energy_scale = 1.0;  ///< Standard deviation of what that leaves of the training energies.
};

/// Fills in the last two.
void measure(MoleculeData& data);

/// What is to be predicted, [B], float64: energies without the part that the composition explains,
/// over the scale. What geometry and neighbours do is a twentieth of an energy, and would drown.
at::Tensor targets(const MoleculeData& data, const std::vector<int64_t>& molecules);

}  // namespace mnemosyne::tasks
