#include "mnemosyne/optim/normuon.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, NorMuonOptions& options) {
  visit("momentum", options.momentum);
  visit("row_decay", options.row_decay);
  visit("num_iterations", options.num_iterations);
  visit("adam_lr_ratio", options.adam_lr_ratio);
  visit("adam_beta1", options.adam_beta1);
  visit("adam_beta2", options.adam_beta2);
}

namespace {

constexpr double kTiny = 1e-10;

MuonOptions muon_options(const NorMuonOptions& options) {
  return {.momentum = options.momentum,
          .num_iterations = options.num_iterations,
          .adam_lr_ratio = options.adam_lr_ratio,
          .adam_beta1 = options.adam_beta1,
          .adam_beta2 = options.adam_beta2};
}

}  // namespace

NorMuon::NorMuon(const NorMuonOptions& options)
    : Muon(muon_options(options), "normuon"), options_(options) {
  check_option(options.row_decay >= 0.0 && options.row_decay < 1.0, "normuon",
               "row_decay in [0, 1)", options.row_decay);
}

std::string NorMuon::options_json() const { return write_options(options_); }

StateLayout NorMuon::state_layout(const at::Tensor& param) const {
  StateLayout layout = Muon::state_layout(param);
  if (is_matrix(param)) layout.back() = entry_of("second_moment", {param.size(0)}, param);
  return layout;
}

std::shared_ptr<const UpdateRule> NorMuon::elementwise() const {
  auto rule = std::make_shared<NorMuon>(*this);
  rule->elementwise_ = true;
  return rule;
}

at::Tensor NorMuon::scaled(const at::Tensor& orthogonal, at::Tensor& second_moment,
                           double lr) const {
  second_moment.lerp_(orthogonal.square().mean(1), 1.0 - options_.row_decay);
  const at::Tensor rows = orthogonal / (second_moment.sqrt() + kTiny).unsqueeze(1);
  const double aspect =
      static_cast<double>(orthogonal.size(0)) / static_cast<double>(orthogonal.size(1));
  const double size = lr * std::sqrt(std::max(1.0, aspect));
  return rows * (orthogonal.norm() / (rows.norm() + kTiny) * size);
}

std::shared_ptr<UpdateRule> make_normuon(const std::string& options_json) {
  return std::make_shared<NorMuon>(read_options<NorMuonOptions>("normuon", options_json));
}

}  // namespace mnemosyne::optim
