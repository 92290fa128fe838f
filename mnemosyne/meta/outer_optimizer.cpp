#include "mnemosyne/meta/outer_optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "mnemosyne/core/error.h"

namespace mnemosyne::meta {
namespace {

constexpr double kEpsilon = 1e-12;

void copy_checked(const at::Tensor& target, const NamedTensors& tensors, const std::string& name) {
  const at::Tensor& source = find(tensors, name);
  if (source.sizes() != target.sizes() || source.scalar_type() != target.scalar_type()) {
    throw InputError("[checkpoint] expected " + name + " with " + std::to_string(target.numel()) +
                     " values of the weights' dtype, got " + std::to_string(source.numel()));
  }
  target.copy_(source);
}

}  // namespace

OuterOptimizer::OuterOptimizer(const at::Tensor& initial, OuterOptimizerOptions options)
    : options_(options),
      initial_(initial.detach().clone()),
      weights_(initial_.clone()),
      mean_(at::zeros_like(initial_)),
      square_(at::zeros_like(initial_)),
      average_(at::zeros_like(initial_)) {}

double OuterOptimizer::step(const at::Tensor& gradient, double rate_factor) {
  const at::NoGradGuard no_grad;
  const double norm = gradient.norm().item<double>();
  const bool clip = options_.clip_norm > 0 && norm > options_.clip_norm;
  const at::Tensor g = clip ? gradient.mul(options_.clip_norm / norm) : gradient;
  ++steps_;
  mean_.mul_(options_.beta1).add_(g, 1 - options_.beta1);
  square_.mul_(options_.beta2).addcmul_(g, g, 1 - options_.beta2);
  const double mean_bias = 1 - std::pow(options_.beta1, steps_);
  const double square_bias = 1 - std::pow(options_.beta2, steps_);
  const at::Tensor direction =
      mean_.div(mean_bias).div_(square_.div(square_bias).sqrt_().add_(kEpsilon));
  const double rate = options_.learning_rate * rate_factor;
  weights_.sub_(weights_.sub(initial_), rate * options_.weight_decay).sub_(direction, rate);
  average_.mul_(options_.ema_decay).add_(weights_, 1 - options_.ema_decay);
  return norm;
}

at::Tensor OuterOptimizer::average() const {
  if (steps_ == 0) return initial_;
  return average_.div(1 - std::pow(options_.ema_decay, steps_));
}

NamedTensors OuterOptimizer::checkpoint() const {
  return {{"steps", at::scalar_tensor(steps_, at::kLong)},
          {"initial", initial_.clone()},
          {"weights", weights_.clone()},
          {"mean", mean_.clone()},
          {"square", square_.clone()},
          {"average", average_.clone()}};
}

void OuterOptimizer::restore(const NamedTensors& tensors) {
  copy_checked(initial_, tensors, "initial");
  copy_checked(weights_, tensors, "weights");
  copy_checked(mean_, tensors, "mean");
  copy_checked(square_, tensors, "square");
  copy_checked(average_, tensors, "average");
  steps_ = find(tensors, "steps").item<int64_t>();
}

}  // namespace mnemosyne::meta
