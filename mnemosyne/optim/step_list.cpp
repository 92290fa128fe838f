#include "mnemosyne/optim/step_list.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <utility>

#include "mnemosyne/optim/deferred_count.h"

namespace mnemosyne::optim {
namespace {

enum Slot { kStep, kMomentum, kSecondMoment };

at::Tensor index_tensor(const std::vector<int64_t>& indices, at::Device device) {
  return at::tensor(indices, at::kLong).to(device, /*non_blocking=*/true);
}

}  // namespace

StepList::StepList(Form form, Inputs inputs) : form_(form), inputs_(std::move(inputs)) {
  int64_t chunk = 0;
  for (size_t i = 0; i < inputs_.params.size(); ++i) {
    const at::Tensor &param = inputs_.params[i], &grad = inputs_.grads[i];
    ParamState& state = inputs_.state[i];
    Group& group = group_of(param);
    group.indices.push_back(static_cast<int64_t>(i));
    for (int64_t k = ops::chunk_count(param.numel(), inputs_.chunk_size); k > 0; --k) {
      group.chunks.push_back(chunk++);
    }
    group.step.params.push_back(in_place() ? param : param.detach());
    group.step.grads.push_back(in_place() ? grad : grad.detach());
    group.step.momenta.push_back(state[kMomentum]);
    // A matrix that never asks for it has an empty one.
    const bool has_second = state[kSecondMoment].numel() == param.numel();
    group.step.second_moments.push_back(has_second ? state[kSecondMoment] : at::Tensor());
    if (inputs_.previous_update) {
      group.step.previous_updates.push_back(state[*inputs_.previous_update]);
    }
    group.step.rows.push_back(inputs_.rows[i]);
    group.step.base.push_back(inputs_.base[i]);
    if (home_.is_cpu()) home_ = param.device();
    if (in_place()) {
      *state[kStep].mutable_data_ptr<int64_t>() += 1;
    } else {
      state[kStep] = state[kStep] + 1;
    }
  }
}

bool StepList::can_join(const std::vector<MemberStep>& members) {
  if (members.size() == 1) return true;
  return std::all_of(members.begin(), members.end(), [&](const MemberStep& member) {
    return member.params.size() == members.front().params.size() && !member.params.empty() &&
           member.options.fallbacks == nullptr && member.options.damped == nullptr &&
           !member.options.lr_factor.defined() && !member.options.weight_decay_factor.defined();
  });
}

StepList::Group& StepList::group_of(const at::Tensor& param) {
  const auto same = [&](const Group& group) {
    const at::Tensor& other = group.step.params.front();
    return other.device() == param.device() && compute_dtype(other) == compute_dtype(param);
  };
  const auto found = std::find_if(groups_.begin(), groups_.end(), same);
  if (found != groups_.end()) return *found;
  Group& group = groups_.emplace_back();
  group.step.chunk_size = inputs_.chunk_size;
  const auto here = [&](const at::Tensor& factor) {
    return factor.defined() ? factor.detach().to(param.device(), compute_dtype(param)) : factor;
  };
  if (in_place() || inputs_.previous_update) group.step.scale = here(inputs_.lr_factor);
  if (in_place()) group.step.decay_scale = here(inputs_.weight_decay_factor);
  return group;
}

ops::StepSums StepList::advance(bool with_sums) {
  for (Group& group : groups_) {
    group.sums = in_place() ? ops::advance_moments_(group.step, with_sums)
                            : ops::advance_moments_reference(group.step, with_sums);
    for (size_t k = 0; k < group.indices.size(); ++k) {
      ParamState& own = inputs_.state[static_cast<size_t>(group.indices[k])];
      own[kMomentum] = group.step.momenta[k];
      if (group.step.second_moments[k].defined()) {
        own[kSecondMoment] = group.step.second_moments[k];
      }
    }
  }
  if (!with_sums || groups_.empty()) return {};
  if (groups_.size() == 1) return groups_[0].sums;
  std::vector<int64_t> order;
  for (const Group& group : groups_) {
    order.insert(order.end(), group.chunks.begin(), group.chunks.end());
  }
  std::vector<int64_t> places(order.size());
  for (size_t k = 0; k < order.size(); ++k) {
    places[static_cast<size_t>(order[k])] = static_cast<int64_t>(k);
  }
  const at::Tensor index = index_tensor(places, home_);
  ops::StepSums all;
  for (const auto member : ops::kStepSums) {
    if (!(groups_[0].sums.*member).defined()) continue;
    std::vector<at::Tensor> parts;
    const at::ScalarType dtype = (groups_[0].sums.*member).scalar_type();
    for (const Group& group : groups_) parts.push_back((group.sums.*member).to(home_, dtype));
    all.*member = at::cat(parts).index_select(0, index);
  }
  return all;
}

at::Tensor StepList::rows_of(const at::Tensor& all, const Group& group) const {
  if (!all.defined() || groups_.size() == 1) return all;
  return all.index_select(0, index_tensor(group.chunks, home_))
      .to(group.step.params.front().device());
}

ops::StepCorrection StepList::correction_of(const ops::StepCorrection& all,
                                            const Group& group) const {
  return ops::changed(all, [&](const at::Tensor& values) { return rows_of(values, group); });
}

std::vector<at::Tensor> StepList::directions(const ops::StepCorrection* correction) {
  std::vector<at::Tensor> updates;
  for (const Group& group : groups_) updates.resize(updates.size() + group.indices.size());
  for (Group& group : groups_) {
    ops::StepCorrection own;
    if (correction != nullptr) own = correction_of(*correction, group);
    const std::vector<at::Tensor> some =
        correction != nullptr ? ops::directions(group.step, group.sums, own)
                              : ops::directions_reference(group.step, group.sums, nullptr);
    for (size_t k = 0; k < some.size(); ++k) {
      const auto i = static_cast<size_t>(group.indices[k]);
      updates[i] = some[k];
      if (!inputs_.previous_update) continue;
      inputs_.state[i][*inputs_.previous_update] = group.step.previous_updates[k];
    }
  }
  return updates;
}

void StepList::apply(const ops::StepCorrection* correction, DeferredCount* fallbacks) {
  for (Group& group : groups_) {
    ops::StepCorrection own;
    if (correction != nullptr) own = correction_of(*correction, group);
    const at::Tensor replaced =
        ops::apply_directions_(group.step, group.sums, correction != nullptr ? &own : nullptr);
    if (fallbacks != nullptr) fallbacks->add(replaced);
  }
}

}  // namespace mnemosyne::optim
