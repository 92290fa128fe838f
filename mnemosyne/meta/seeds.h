#pragma once

#include <cstdint>
#include <initializer_list>

#include "mnemosyne/tasks/random.h"

namespace mnemosyne::meta {

/// A seed that is a pure function of `seed` and the numbers in `path`, for example (outer step,
/// task).
///
/// Every random draw of meta-training comes from such a seed, so that nothing depends on which
/// thread works first and a resumed run draws what an uninterrupted one would have drawn.
inline uint64_t derive_seed(uint64_t seed, std::initializer_list<uint64_t> path) {
  for (const uint64_t part : path) seed = tasks::mix_seeds(seed, part);
  return seed;
}

}  // namespace mnemosyne::meta
