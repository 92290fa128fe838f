#pragma once

#include <memory>
#include <vector>

#include "mnemosyne/meta/estimator.h"
#include "mnemosyne/meta/fitness.h"
#include "mnemosyne/meta/life.h"
#include "mnemosyne/meta/run_sampler.h"

namespace mnemosyne::meta {

struct TruncatedGradientOptions {
  int64_t num_tasks = 8;            ///< Lives side by side, one window each per outer step.
  int64_t window = 20;              ///< K, inner steps that are differentiated through.
  double imitation_fraction = 0.3;  ///< Fraction of lives that are an expert's.
  std::vector<double> expert_rates = {1e-3, 3e-3, 1e-2};  ///< One is drawn for each of these lives.
  FitnessOptions fitness = {};  ///< Its loss_floor, as a fraction of the life's first loss.
};

/// Gradients through a window of K updates, without a graph through the model.
///
/// With the model's gradients g_t as constants and x_{s+1} = x_s - u_s, the window's mean log-loss
/// J = 1/K sum_{t=1..K} log(L_t + floor) has dJ/du_s = - sum_{t>s} w_t g_t, w_t = 1 / (K (L_t +
/// floor)), from the g_t that training computes anyway. Only the rule's own recurrence is
/// differentiated. State is carried from window to window and detached in between. The rule sees
/// parameters as constants, too.
///
/// In an expert's life (Adam with cosine decay f) parameters follow the expert's updates f e, and
/// the loss is 1/2 mean (u - f e)^2 / mean e^2, so that all tensors count alike.
class TruncatedGradientEstimator : public GradientEstimator {
 public:
  TruncatedGradientEstimator(RunSampler sampler, TruncatedGradientOptions options);

  MetaGradient estimate(const optim::UpdateRule& rule, const OuterStep& step) override;
  NamedTensors checkpoint(ProcessGroup& processes) const override;
  void restore(const NamedTensors& tensors) override;

 private:
  /// A place: one network, the rule's memory of it, and the expert's where it leads.
  struct Trainee {
    Life life = {};
    int64_t step = 0;
    std::vector<at::Tensor> params = {};
    optim::State state = {};
    optim::State expert_state = {};
    NamedTensors restored = {};  // of a checkpoint, until there is a rule to read it for
  };

  void begin_life(Trainee& trainee, const optim::UpdateRule& rule, const Run& run,
                  at::Device device) const;
  void read_restored(Trainee& trainee, const optim::UpdateRule& rule, const Run& run,
                     at::Device device) const;
  MetaGradient run_window(const optim::UpdateRule& rule, Trainee& trainee,
                          const OuterStep& step) const;

  /// The learning rate of the expert that leads in this run; 0 where the rule itself does.
  double expert_rate(const Run& run) const;
  std::vector<at::Tensor> expert_updates(Trainee& trainee, const std::vector<at::Tensor>& grads,
                                         double rate) const;
  void finish_window(Trainee& trainee, bool goes_on) const;

  RunSampler sampler_;
  TruncatedGradientOptions options_;
  std::shared_ptr<const optim::UpdateRule> expert_;
  std::vector<Trainee> trainees_;
};

}  // namespace mnemosyne::meta
