// The directions of a list as one differentiable function. Its derivatives by the corrections of a
// chunk are sums over the chunk's coordinates, known in closed form: no graph through coordinates.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>
#include <optional>
#include <utility>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/tensor_step/paged_step.h"
#include "mnemosyne/ops/tensor_step/stretches.h"

namespace mnemosyne::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor soft_slope(const at::Tensor& x) { return (x.abs() + 1).square().reciprocal(); }

/// A step and what its forward pass found.
struct Taken : torch::CustomClassHolder {
  PagedStep x;
  StepCorrection correction;
  PagedDirections directions;

  Taken(const TensorStep& step, const StepSums& sums, const StepCorrection& given)
      : x(step, sums, given),
        correction(given),
        directions(x, x.m, x.v, x.any_matrix() ? orthogonal_directions(x) : at::Tensor()) {}
};

/// The slope of h by U: of the read-outs that look at the direction.
at::Tensor slope_by_unit_direction(const Taken& t) {
  const auto& [v, root, a, own] = t.directions;
  const std::vector<at::Tensor>& c = t.x.c.readouts;
  const at::Tensor u = own / t.x.c.unit, g = t.x.g / root;
  return c[0] * soft_slope(u * a) * a + c[1] * soft_slope(u * g) * g +
         c[3] * soft_slope(u) * u.sign();
}

/// Cotangents of the orthogonalised matrices -> of what was orthogonalised, both in pages; zero for
/// vectors. Equal shapes go together.
at::Tensor through_orthogonalization(const PagedStep& x, const at::Tensor& cotangent) {
  const at::Tensor result = at::zeros_like(cotangent), blended = x.blended();
  const std::vector<at::Tensor> from = x.matrices(cotangent), origins = x.matrices(blended),
                                to = x.matrices(result);
  std::map<std::pair<int64_t, int64_t>, std::vector<size_t>> shapes;
  for (size_t i = 0; i < origins.size(); ++i) {
    shapes[{origins[i].size(0), origins[i].size(1)}].push_back(i);
  }
  for (const auto& [shape, members] : shapes) {
    std::vector<at::Tensor> grads, points;
    for (const size_t i : members) {
      grads.push_back(from[i]);
      points.push_back(origins[i]);
    }
    const std::vector<at::Tensor> own =
        orthogonalize_backward(at::stack(grads), at::stack(points)).unbind();
    for (size_t k = 0; k < members.size(); ++k) to[members[k]].copy_(own[k]);
  }
  return result;
}

/// Of cotangents of u [B, L] the products, summed over chunks, [C] each: with the direction, with
/// p, with what the mixture adds, with each read-out's input, and, if it is asked for, with what
/// the blend adds. All without the step size but the last.
std::vector<at::Tensor> products(const Taken& t, const at::Tensor& cotangent, bool of_blend) {
  const PagedStep& x = t.x;
  const Coefficients& c = x.c;
  const auto& [v, root, a, own] = t.directions;
  const at::Tensor toward_adam = (a * kDirectionRms - own) * c.is_matrix;
  const at::Tensor mixed = at::addcmul(own, toward_adam, c.mixture);
  at::Tensor factor, by_h;  // 1 + bound soft h; the slope of the objective by h, without s
  std::vector<at::Tensor> inputs;
  if (!c.readouts.empty()) {
    inputs = readout_inputs(x, t.directions);
    const at::Tensor h = readout_sum(x, inputs);
    factor = soft(h) * kReadoutBound + 1;
    by_h = cotangent * mixed * soft_slope(h) * kReadoutBound;
  }
  const auto corrected = [&](const at::Tensor& direction) {
    return factor.defined() ? direction * factor : direction;
  };
  std::vector<at::Tensor> rows{cotangent * at::addcmul(corrected(mixed), c.learned_decay, x.p),
                               cotangent * x.p, cotangent * corrected(toward_adam)};
  for (const at::Tensor& input : inputs) rows.push_back(by_h * input);
  if (of_blend) {
    at::Tensor by_own = cotangent * corrected(at::rsub(c.mixture, 1));
    if (by_h.defined()) by_own = by_own + by_h * slope_by_unit_direction(t) / c.unit;
    rows.push_back(through_orthogonalization(x, by_own * c.step * c.scale * c.is_matrix) *
                   (x.g - x.m));
  }
  std::vector<at::Tensor> sums;
  for (const at::Tensor& row : rows) {
    sums.push_back(row.sum(-1, /*keepdim=*/false, sum_dtype(row.device())));
  }
  return x.map.chunk_sums(at::stack(sums)).unbind();
}

/// The gradients of a correction from cotangents of u; undefined where there is none.
StepCorrection gradients_of(const Taken& t, const at::Tensor& cotangent, bool of_blend) {
  const PagedStep& x = t.x;
  const StepCorrection& given = t.correction;
  const std::vector<at::Tensor> chunks = products(t, cotangent, of_blend);
  const at::Tensor size = given.step.defined() ? x.base_step * given.step : x.base_step;
  StepCorrection result;
  if (given.step.defined()) result.step = chunks[0] * x.base_step;
  if (given.decay.defined()) result.decay = chunks[1] * size;
  if (given.mixture.defined()) result.mixture = chunks[2] * size;
  if (given.readouts.defined()) {
    const std::vector<at::Tensor> own_readouts(chunks.begin() + 3,
                                               chunks.begin() + 3 + kNumReadouts);
    result.readouts = at::stack(own_readouts, 1) * size.unsqueeze(1);
  }
  if (of_blend) result.blend = chunks.back() * x.base_blend;
  return result;
}

/// The previous updates of the step after this one, from u without any decay in pages.
std::vector<at::Tensor> kept_updates(const PagedStep& x, const at::Tensor& taken) {
  std::vector<at::Tensor> kept;
  for (const at::Tensor& before : x.step.previous_updates) kept.push_back(at::empty_like(before));
  x.pages.store({{taken, &kept}});
  return kept;
}

struct Directions : torch::autograd::Function<Directions> {
  using Given = std::optional<at::Tensor>;

  static variable_list forward(AutogradContext* ctx, TensorStep& step, const StepSums& sums,
                               const Given& factor, const Given& blend, const Given& mixture,
                               const Given& decay, const Given& readouts) {
    const auto or_none = [](const Given& x) { return x.value_or(at::Tensor()); };
    const auto taken =
        c10::make_intrusive<Taken>(step, sums,
                                   StepCorrection{or_none(factor), or_none(blend), or_none(mixture),
                                                  or_none(decay), or_none(readouts)});
    const Coefficients& c = taken->x.c;
    const at::Tensor direction = corrected_direction(taken->x, taken->directions);
    const at::Tensor u = c.step * at::addcmul(direction, c.learned_decay, taken->x.p);
    if (has_previous_updates(step)) {
      step.previous_updates = kept_updates(taken->x, c.step * direction);
    }
    ctx->saved_data["taken"] = c10::IValue::make_capsule(taken);
    variable_list result;
    const std::vector<at::Tensor> views = taken->x.pages.views(u);
    auto next = views.begin();
    for (const at::Tensor& param : step.params) {
      result.push_back(param.numel() > 0 ? *next++ : at::zeros(param.sizes(), u.options()));
    }
    return result;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "[directions] expected first derivatives to be asked for, got higher ones");
    const auto holder = ctx->saved_data["taken"].toCapsule();
    const Taken& taken = static_cast<const Taken&>(*holder);
    const at::Tensor cotangent = taken.x.pages.zeros(1).select(0, 0);
    taken.x.pages.load({{cotangent, &grads}});
    const StepCorrection& given = taken.correction;
    const bool of_blend =
        given.blend.defined() && given.blend.requires_grad() && taken.x.any_matrix();
    StepCorrection result = gradients_of(taken, cotangent, of_blend);
    variable_list all(2);  // neither list nor sums have any; then in the order of `forward`
    for (const auto member : kStepCorrections) {
      at::Tensor own = result.*member;
      const at::Tensor& like = given.*member;
      if (!own.defined() && like.defined()) own = at::zeros_like(like);
      all.push_back(own.defined() ? own.to(like.scalar_type()) : own);
    }
    return all;
  }
};

/// Autograd takes no undefined tensors.
std::optional<at::Tensor> given_or_not(const at::Tensor& x) {
  return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
}

}  // namespace

std::vector<at::Tensor> directions(TensorStep& step, const StepSums& sums,
                                   const StepCorrection& correction) {
  const StepCorrection given = checked_correction(step, &correction);
  TORCH_CHECK(sums.second_moment.defined(), "[directions] expected sums, got none");
  if (!is_given(given)) return directions_reference(step, sums, nullptr);
  std::vector<at::Tensor> result, kept;
  for (Stretch& stretch : stretches(step, kMostAtOnce)) {
    const StepSums own = stretch.of(sums);
    const StepCorrection decided = stretch.of(given);
    const std::vector<at::Tensor> part =
        stretch.has_numbers()
            ? Directions::apply(stretch.step, own, given_or_not(decided.step),
                                given_or_not(decided.blend), given_or_not(decided.mixture),
                                given_or_not(decided.decay), given_or_not(decided.readouts))
            : directions_reference(stretch.step, own, &decided);
    result.insert(result.end(), part.begin(), part.end());
    const std::vector<at::Tensor>& own_kept = stretch.step.previous_updates;
    kept.insert(kept.end(), own_kept.begin(), own_kept.end());
  }
  step.previous_updates = std::move(kept);
  return result;
}

}  // namespace mnemosyne::ops
