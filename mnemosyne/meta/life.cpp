#include "mnemosyne/meta/life.h"

#include <ATen/ops/tensor.h>

#include <algorithm>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/checkpoint.h"

namespace mnemosyne::meta {
namespace {

constexpr uint64_t kLifeStream = 0x6c696665;  // Apart from the noise of the same outer step.

}  // namespace

Run life_run(const RunSampler& sampler, const Life& life, uint64_t seed, int64_t window) {
  const uint64_t own = derive_seed(
      seed, {kLifeStream, static_cast<uint64_t>(life.place), static_cast<uint64_t>(life.number)});
  Run run = sampler.sample(own, life.horizon);
  if (life.number == 0) {
    Random draws(derive_seed(own, {1}));
    run.num_steps = draws.between(std::min(window, run.num_steps), run.num_steps);
  }
  return run;
}

void append_life(NamedTensors& tensors, const std::string& prefix, const Life& life) {
  const std::vector<int64_t> numbers{life.number, life.horizon, life.active};
  tensors.emplace_back(prefix + "life", at::tensor(numbers, at::kLong));
  tensors.emplace_back(prefix + "first_loss", at::tensor({life.first_loss}, at::kDouble));
}

Life find_life(const NamedTensors& tensors, const std::string& prefix, int64_t place) {
  const at::Tensor numbers = find_checked(tensors, prefix + "life", at::kLong, {3});
  const at::Tensor first = find_checked(tensors, prefix + "first_loss", at::kDouble, {1});
  const Life life{.place = place,
                  .number = numbers[0].item<int64_t>(),
                  .horizon = numbers[1].item<int64_t>(),
                  .active = numbers[2].item<int64_t>() != 0,
                  .first_loss = first.item<double>()};
  if (life.number < 0 || (life.active && life.horizon < 1)) {
    throw InputError("[checkpoint] expected a life with a horizon, got " +
                     std::to_string(life.horizon));
  }
  return life;
}

}  // namespace mnemosyne::meta
