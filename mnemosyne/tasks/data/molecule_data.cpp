#include "mnemosyne/tasks/data/molecule_data.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_pinv.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {
namespace {

/// One and the numbers of atoms, [B,1+E].
at::Tensor composition_terms(const MoleculeData& data, const std::vector<int64_t>& molecules) {
  const at::Tensor counts = data.molecules.compositions(molecules);
  return at::cat({at::ones_like(counts.narrow(1, 0, 1)), counts}, 1);
}

}  // namespace

void MoleculeSet::add(const XyzFrame& frame, double energy, const std::string& place) {
  for (size_t i = 0; i < frame.elements.size(); ++i) {
    const auto found = std::find(elements_.begin(), elements_.end(), frame.elements[i]);
    if (found == elements_.end()) {
      std::string known;
      for (const int64_t element : elements_) {
        known += (known.empty() ? "" : ", ") + std::to_string(element);
      }
      refuse_data(place, "elements of atomic number " + known, std::to_string(frame.elements[i]));
    }
    atoms_.push_back(static_cast<float>(found - elements_.begin()));
    for (const double x : frame.positions[i]) atoms_.push_back(static_cast<float>(x));
  }
  first_.push_back(static_cast<int64_t>(atoms_.size() / 4));
  energies_.push_back(energy);
}

at::Tensor MoleculeSet::atoms(const std::vector<int64_t>& molecules) const {
  int64_t largest = 0;
  for (const int64_t i : molecules) largest = std::max(largest, first_[i + 1] - first_[i]);
  at::Tensor result = at::zeros({static_cast<int64_t>(molecules.size()), largest, 4}, at::kFloat);
  result.select(2, 0).fill_(-1.0);
  auto* row = result.mutable_data_ptr<float>();
  for (const int64_t i : molecules) {
    std::copy(atoms_.begin() + 4 * first_[i], atoms_.begin() + 4 * first_[i + 1], row);
    row += 4 * largest;
  }
  return result;
}

at::Tensor MoleculeSet::compositions(const std::vector<int64_t>& molecules) const {
  const auto elements = static_cast<int64_t>(elements_.size());
  at::Tensor result = at::zeros({static_cast<int64_t>(molecules.size()), elements}, at::kDouble);
  auto* row = result.mutable_data_ptr<double>();
  for (const int64_t i : molecules) {
    for (int64_t atom = first_[i]; atom < first_[i + 1]; ++atom) {
      row[static_cast<int64_t>(atoms_[4 * atom])] += 1.0;
    }
    row += elements;
  }
  return result;
}

at::Tensor MoleculeSet::energies(const std::vector<int64_t>& molecules) const {
  at::Tensor result = at::empty({static_cast<int64_t>(molecules.size())}, at::kDouble);
  auto* value = result.mutable_data_ptr<double>();
  for (const int64_t i : molecules) *value++ = energies_[i];
  return result;
}

void measure(MoleculeData& data) {
  const at::Tensor energies = data.molecules.energies(data.train);
  const at::Tensor terms = composition_terms(data, data.train);
  // Of smallest norm where the training molecules leave it open.
  data.composition_energies = at::matmul(at::linalg_pinv(terms), energies);
  const at::Tensor rest = energies - at::matmul(terms, data.composition_energies);
  // Equal energies stay finite.
  data.energy_scale = std::max(rest.square().mean().sqrt().item<double>(), 1e-6);
}

at::Tensor targets(const MoleculeData& data, const std::vector<int64_t>& molecules) {
  const at::Tensor explained =
      at::matmul(composition_terms(data, molecules), data.composition_energies);
  return (data.molecules.energies(molecules) - explained) / data.energy_scale;
}

}  // namespace mnemosyne::tasks
