#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "mnemosyne/optim/step_list.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

struct OrthogonalOptions {
  double lr = 1e-2;            ///< Step size before the schedule; StepOptions::lr multiplies it.
  double momentum = 0.95;      ///< Decay of the momentum of a matrix.
  double beta1 = 0.9;          ///< Decay of the momentum of a vector.
  double beta2 = 0.99;         ///< Decay of the second moment.
  double eps = 1e-8;           ///< Beside the root of the second moment.
  int64_t warmup_steps = 10;   ///< The step size grows linearly over the first ones.
  double decay_steps = 100.0;  ///< Without num_steps the step falls as 1 / sqrt(t / decay_steps).
  double boost = 2.5;          ///< Largest factor of the step, in short runs and young ones; >= 1.
  double boost_steps = 600.0;  ///< Runs of so many steps and more have none, num_steps given.
};

/// Orthogonalised momentum on matrices, Adam on the rest, and a schedule that needs no tuning.
///
/// For a tensor of two dimensions and more, seen as a matrix [shape[0], rest] with at least two
/// rows and columns:
///
///     m <- b m + (1 - b) g          d = m + (1 - b) (g - m)         (Nesterov)
///     p <- p - s_t .2 sqrt(max(rows, columns)) orthogonalize(d)
///
/// for every other tensor Adam with the same step size s_t. s_t = lr min(1, t / warmup) c_t with t
/// the parameter's own steps. When StepOptions::num_steps = T is given,
///
///     c_t = min(boost, max(1, sqrt(boost_steps / T))) (1 + cos(pi t / T)) / 2
///
/// since a short run wants a larger step, and otherwise c_t = 1 / sqrt(1 / boost^2 + t / decay).
/// The factor .2 sqrt(max) gives a matrix the root mean square of a typical Adam step, so that one
/// step size serves both.
///
/// State: 4 bytes a parameter for matrices, 8 for vectors. This is what the default Mnemosyne
/// starts from.
///
///     auto rule = optim::make_rule("orthogonal");
///
/// The idea is Muon's (Jordan 2024); scale, schedule and the choice of tensors are ours.
class OrthogonalRule : public UpdateRule {
 public:
  /// InputError for a value out of range.
  explicit OrthogonalRule(OrthogonalOptions options = {});

  std::string name() const override { return "orthogonal"; }
  StateLayout state_layout(const at::Tensor& param) const override;
  std::shared_ptr<const UpdateRule> elementwise() const override;
  double default_lr() const override { return 1.0; }
  std::optional<double> default_momentum() const override { return options_.momentum; }
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  std::string options_json() const override;
  bool steps_with(const UpdateRule& other) const override;

  const OrthogonalOptions& options() const { return options_; }

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  void do_step_members_(const std::vector<MemberStep>& members) const override;
  bool steps_with_factors() const override { return true; }

 private:
  // Whose `learned = false` this is.
  friend class MnemosyneRule;
  friend class SuperRule;
  friend class TensorwiseRule;

  int64_t rows(const at::Tensor& param) const;
  /// A list for `do_update`, without weight decay.
  StepList::Inputs inputs(at::TensorList grads, const State& state, at::TensorList params,
                          const StepOptions& options) const;
  /// Adds a list to `all`.
  void join(at::TensorList grads, const State& state, at::TensorList params,
            const StepOptions& options, const std::vector<double>& shrink,
            StepList::Inputs& all) const;
  static void step_joined_(const std::vector<MemberStep>& members);

  OrthogonalOptions options_;
  bool elementwise_ = false;  // Adam's direction for matrices, too
};

/// Names the options.
void bind(Fields& visit, OrthogonalOptions& options);

std::shared_ptr<UpdateRule> make_orthogonal_rule(const std::string& options_json);

/// The number of rows of the matrix that a parameter is treated as, 0 when it is treated as a
/// vector.
int64_t matrix_rows(const at::Tensor& param);

/// s_t at the t-th step of a parameter, t = 1, 2, ...; beyond num_steps that of the last one.
double base_step_size(const OrthogonalOptions& options, const StepOptions& step, int64_t t);

/// How the base rule moves a tensor at its t-th step, but for the weight decay.
ops::StepBase base_coefficients(const OrthogonalOptions& options, const StepOptions& step,
                                int64_t t, bool matrix);

}  // namespace mnemosyne::optim
