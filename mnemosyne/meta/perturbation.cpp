#include "mnemosyne/meta/perturbation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/named_number.h"

namespace mnemosyne::meta {
at::Tensor perturbation_scale(const NamedTensors& weights, const std::vector<std::string>& scales) {
  const at::Tensor result = at::ones_like(flatten(weights));
  for (const std::string& text : scales) {
    const NamedNumber scale = parse_named_number(text, "sigma_scales");
    bool fits = false;
    int64_t offset = 0;
    for (const auto& [name, tensor] : weights) {
      if (name.find(scale.name) != std::string::npos) {
        result.narrow(0, offset, tensor.numel()).fill_(scale.number);
        fits = true;
      }
      offset += tensor.numel();
    }
    if (!fits) {
      throw InputError("[sigma_scales] expected part of a weight's name, got \"" + scale.name +
                       "\"");
    }
  }
  return result;
}

at::Tensor perturbation_noise(const at::Tensor& theta, int64_t num_pairs, uint64_t seed) {
  return at::randn({num_pairs, theta.numel()}, tensor_generator(seed), theta.options());
}

std::vector<Member> perturbed_members(const optim::UpdateRule& rule, const at::Tensor& offsets,
                                      const Run& run) {
  const NamedTensors weights = rule.weights();
  const at::Tensor theta = flatten(weights).detach();
  std::vector<Member> members;
  for (int64_t k = 0; k < offsets.size(0); ++k) {
    for (const double sign : {1.0, -1.0}) {
      const at::Tensor perturbed = theta.add(offsets[k], sign);
      members.push_back(
          {.rule = rule.with_weights(unflatten(perturbed, weights)), .options = run.options()});
    }
  }
  return members;
}

at::Tensor antithetic_gradient(const std::vector<double>& fitness, const at::Tensor& noise,
                               const at::Tensor& scale, double sigma) {
  const int64_t pairs = noise.size(0);
  std::vector<double> coefficients;
  for (int64_t k = 0; k < pairs; ++k) {
    const double difference =
        fitness[static_cast<size_t>(2 * k)] - fitness[static_cast<size_t>(2 * k + 1)];
    coefficients.push_back(difference / (2 * sigma * static_cast<double>(pairs)));
  }
  const at::Tensor sum = at::tensor(coefficients, noise.options()).unsqueeze(1).mul(noise).sum(0);
  return sum.div(scale).masked_fill(scale == 0, 0.0);  // what is not perturbed is not learned
}

}  // namespace mnemosyne::meta
