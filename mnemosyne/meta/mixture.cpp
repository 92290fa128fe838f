#include "mnemosyne/meta/mixture.h"

#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/checkpoint.h"

namespace mnemosyne::meta {
namespace {

std::string part_prefix(size_t index) { return "part." + std::to_string(index) + "."; }

}  // namespace

MixtureEstimator::MixtureEstimator(std::vector<Part> parts, bool normalize)
    : parts_(std::move(parts)), normalize_(normalize) {
  if (parts_.empty()) throw InputError("[estimators] expected at least one, got none");
  double total = 0;
  for (const Part& part : parts_) total += part.weight;
  for (Part& part : parts_) part.weight /= total;
}

MetaGradient MixtureEstimator::estimate(const optim::UpdateRule& rule, const OuterStep& step) {
  MetaGradient total{.gradient = at::zeros_like(flatten_learned(rule))};
  double loss = 0, loss_weight = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    OuterStep own = step;
    own.seed = derive_seed(step.seed, {i});  // Two parts of one kind draw different tasks.
    MetaGradient part = parts_[i].estimator->estimate(rule, own);
    const double norm = normalize_ ? part.gradient.norm().item<double>() : 1.0;
    if (norm > 0) total.gradient.add_(part.gradient, parts_[i].weight / norm);
    if (std::isfinite(part.meta_loss)) {
      loss += parts_[i].weight * part.meta_loss;
      loss_weight += parts_[i].weight;
    }
    total.used += part.used;
    total.skipped += part.skipped;
    total.inner_steps += part.inner_steps;
    total.runs.insert(total.runs.end(), part.runs.begin(), part.runs.end());
  }
  total.meta_loss = loss_weight > 0 ? loss / loss_weight : std::nan("");
  return total;
}

NamedTensors MixtureEstimator::checkpoint(ProcessGroup& processes) const {
  NamedTensors tensors;
  for (size_t i = 0; i < parts_.size(); ++i) {
    append(tensors, part_prefix(i), parts_[i].estimator->checkpoint(processes));
  }
  return tensors;
}

void MixtureEstimator::restore(const NamedTensors& tensors) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    parts_[i].estimator->restore(select(tensors, part_prefix(i)));
  }
}

}  // namespace mnemosyne::meta
