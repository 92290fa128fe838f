#pragma once

#include <cstdint>
#include <string>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/meta/run_sampler.h"

namespace mnemosyne::meta {

/// A training run that is carried over many outer steps, one window at a time.
///
/// An estimator has several places; in each, one life follows the other. What a life trains is a
/// pure function of the meta-training's seed, its place and its number, so that only numbers have
/// to be stored.
struct Life {
  int64_t place = 0;
  int64_t number = 0;     ///< Lives before this one in its place.
  int64_t horizon = 0;    ///< The horizon when it began.
  bool active = false;    ///< False before the first window.
  double first_loss = 0;  ///< The loss at its first step, which scales all others.
};

/// What a life trains. First lives are cut to a random part of their length, at least `window`
/// steps, so that the places of an estimator are at different ages.
Run life_run(const RunSampler& sampler, const Life& life, uint64_t seed, int64_t window);

/// Life in and out of a checkpoint, as tensors whose names begin with `prefix`.
void append_life(NamedTensors& tensors, const std::string& prefix, const Life& life);
Life find_life(const NamedTensors& tensors, const std::string& prefix, int64_t place);

}  // namespace mnemosyne::meta
