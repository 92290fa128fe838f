#pragma once

#include "mnemosyne/nn/position/damped_position.h"
#include "mnemosyne/nn/position/position_spectrum.h"

namespace mnemosyne::nn {

// Calls visit(name, member) for every option, by the names that the members have: for whatever
// reads options from text or writes them (the Python package, the metadata of weights files).

template <typename Visit>
void for_each_field(FourierPositionOptions& o, Visit&& visit) {
  visit("num_heads", o.num_heads);
  visit("position_dim", o.position_dim);
  visit("kind", o.kind);
  visit("coupling", o.coupling);
  visit("factor", o.factor);
  visit("num_frequencies", o.num_frequencies);
  visit("num_components", o.num_components);
  visit("kernel", o.kernel);
  visit("matern_nu", o.matern_nu);
  visit("window", o.window);
  visit("smoothing", o.smoothing);
  visit("min_width", o.min_width);
  visit("max_width", o.max_width);
  visit("extent", o.extent);
  visit("position_scale", o.position_scale);
  visit("initial_amplitude", o.initial_amplitude);
  visit("max_bound", o.max_bound);
  visit("draws", o.draws);
  visit("phase", o.phase);
  visit("rotation_invariant", o.rotation_invariant);
  visit("released_code", o.released_code);
  visit("hidden", o.hidden);
  visit("seed", o.seed);
}

template <typename Visit>
void for_each_field(DampedPositionOptions& o, Visit&& visit) {
  visit("num_heads", o.num_heads);
  visit("num_components", o.num_components);
  visit("min_width", o.min_width);
  visit("max_width", o.max_width);
  visit("initial_weight", o.initial_weight);
  visit("seed", o.seed);
}

}  // namespace mnemosyne::nn
