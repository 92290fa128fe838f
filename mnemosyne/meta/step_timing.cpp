#include "mnemosyne/meta/step_timing.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "mnemosyne/core/device.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/ops/operation_count.h"
#include "mnemosyne/optim/deferred_count.h"

namespace mnemosyne::meta {
namespace {

std::vector<at::Tensor> copies(at::TensorList tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.detach().clone());
  return result;
}

// One optimizer at work on its own copy of the parameters.
using Step = std::function<void()>;

Step fused_adamw_step(at::TensorList params, const std::vector<at::Tensor>& grads) {
  std::vector<at::Tensor> own = copies(params);
  std::vector<at::Tensor> means;
  std::vector<at::Tensor> squares;
  std::vector<at::Tensor> counters;
  for (const at::Tensor& param : own) {
    means.push_back(at::zeros_like(param));
    squares.push_back(at::zeros_like(param));
    counters.push_back(at::scalar_tensor(0.0, param.options().dtype(at::kFloat)));
  }
  return [=]() mutable {
    for (at::Tensor& counter : counters) counter.add_(1);
    at::_fused_adamw_(own, grads, means, squares, {}, counters, /*lr=*/1e-3, /*beta1=*/0.9,
                      /*beta2=*/0.999, /*weight_decay=*/0.01, /*eps=*/1e-8, /*amsgrad=*/false,
                      /*maximize=*/false);
  };
}

Step contender_step(const Contender& contender, at::TensorList params,
                    const std::vector<at::Tensor>& grads) {
  constexpr int64_t kRunLength = 1000;
  std::vector<at::Tensor> own = copies(params);
  return [=, member = contender.member(kRunLength),
          state = optim::init_state(*contender.rule, own)]() mutable {
    member.rule->step_(grads, state, own, member.options);
  };
}

/// Counts what a step of the optimizer with its gradients asks for; not the first one.
void count_operations(const Contender& contender, at::TensorList params,
                      const std::vector<at::Tensor>& grads, StepCost& cost) {
  std::vector<at::Tensor> own_grads = grads;
  const Step step = contender_step(contender, params, grads);
  step();
  const ops::OperationCount count;
  optim::DeferredCount nonfinite;
  optim::clean_gradients(own_grads, nonfinite);
  step();
  cost.operations = count.operations();
  cost.host_reads = count.host_reads();
}

double seconds_of(const Step& step, at::Device device) {
  synchronize(device);
  const auto start = std::chrono::steady_clock::now();
  step();
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

double state_bytes_per_param(const optim::UpdateRule& rule, at::TensorList params) {
  size_t bytes = 0;
  int64_t numbers = 0;
  for (const at::Tensor& param : params) {
    const optim::ParamState state = rule.init(param);
    for (size_t i = 1; i < state.size(); ++i) bytes += state[i].nbytes();
    numbers += param.numel();
  }
  return static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(numbers, 1));
}

std::vector<StepCost> time_steps(const std::vector<Contender>& contenders, at::TensorList params,
                                 int64_t repetitions) {
  const at::NoGradGuard no_grad;
  const at::Device device = params.empty() ? at::kCPU : params[0].device();
  const at::Generator generator = tensor_generator(0);
  std::vector<at::Tensor> grads;
  for (const at::Tensor& param : params) {
    const at::Tensor draws = at::randn(param.sizes(), generator, param.options().device(at::kCPU));
    grads.push_back(draws.mul_(0.01).to(device));
  }
  const Step reference = fused_adamw_step(params, grads);
  std::vector<Step> steps;
  for (const Contender& contender : contenders) {
    steps.push_back(contender_step(contender, params, grads));
  }

  std::vector<std::vector<double>> seconds(steps.size());
  std::vector<std::vector<double>> quotients(steps.size());
  // The first repetition warms caches and workspaces up.
  for (int64_t repetition = 0; repetition <= repetitions; ++repetition) {
    for (size_t i = 0; i < steps.size(); ++i) {
      const double own = seconds_of(steps[i], device);
      const double fused = seconds_of(reference, device);
      if (repetition == 0) continue;
      seconds[i].push_back(own);
      quotients[i].push_back(own / fused);
    }
  }
  std::vector<StepCost> costs;
  for (size_t i = 0; i < steps.size(); ++i) {
    costs.push_back({1e3 * median(seconds[i]), median(quotients[i]),
                     state_bytes_per_param(*contenders[i].rule, params)});
    count_operations(contenders[i], params, grads, costs.back());
  }
  return costs;
}

std::vector<at::Tensor> vit_tiny_params() {
  constexpr int64_t kWidth = 192;
  constexpr int64_t kBlocks = 12;
  constexpr int64_t kTokens = 14 * 14 + 1;
  constexpr int64_t kClasses = 10;
  std::vector<std::vector<int64_t>> shapes{
      {1, 1, kWidth}, {1, kTokens, kWidth}, {kWidth, 3, 16, 16}, {kWidth}};
  const auto linear = [&](int64_t out, int64_t in) {
    shapes.push_back({out, in});
    shapes.push_back({out});
  };
  const auto norm = [&] { shapes.insert(shapes.end(), {{kWidth}, {kWidth}}); };
  for (int64_t block = 0; block < kBlocks; ++block) {
    norm();
    linear(3 * kWidth, kWidth);
    linear(kWidth, kWidth);
    norm();
    linear(4 * kWidth, kWidth);
    linear(kWidth, 4 * kWidth);
  }
  norm();
  linear(kClasses, kWidth);

  const at::Generator generator = tensor_generator(1);
  std::vector<at::Tensor> params;
  for (const std::vector<int64_t>& shape : shapes) {
    params.push_back(at::randn(shape, generator, at::TensorOptions(at::kFloat)).mul_(0.02));
  }
  return params;
}

}  // namespace mnemosyne::meta
