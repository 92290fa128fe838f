#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mnemosyne/tasks/xyz.h"

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
  /// Of the training energies; the scale is their standard deviation.
  double energy_mean = 0.0, energy_scale = 1.0;
};

/// Fills in mean and scale.
void measure(MoleculeData& data);

}  // namespace mnemosyne::tasks
