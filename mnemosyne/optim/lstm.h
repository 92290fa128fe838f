#pragma once

#include "mnemosyne/ops/lstm_step/lstm_step.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// What an LSTM rule sees of a gradient, and how its output becomes an update.
enum class LstmFeatures {
  kLogSign,  ///< "lstm": logarithm and sign of g; update = output_scale out
  kRnnProp,  ///< "lstm-rnnprop": g and its mean over its root mean square; output_scale tanh(out)
};

struct LstmOptions {
  int64_t num_hidden = 20;     ///< Units of each of the two layers, 1 to 64.
  double output_scale = 0.01;  ///< Of the output, above 0; "lstm-rnnprop" starts from .1.
  double log_scale = 10.0;     ///< p of the log-and-sign features, above 0.
  double decay = 0.95;         ///< Of the means of g and g^2 of "lstm-rnnprop", in [0, 1).
  int64_t seed = 0;            ///< Of the initial weights.
};

/// A learned optimizer of the first generation, the baseline of every table: two LSTM layers of 20
/// units that run on every coordinate by itself, with shared weights. Of a coordinate's gradient g
/// they see
///
///     "lstm"          max(log |g| / p, -1)  and  clip(e^p g, -1, 1)           p = 10
///     "lstm-rnnprop"  g / r  and  m^ / r,  r = sqrt(v^) + 1e-12
///
/// (m and v are the means of g and g^2 with decay .95, m^ and v^ the same bias-corrected)
/// and the output is the update, times .01, or tanh of it times .1. lr multiplies it (default 1).
/// Untrained weights (a seeded draw, the output
/// near zero) do not optimise anything: see `default_rule` in weights.h for trained ones.
///
/// State: step; hidden1, cell1, hidden2, cell2 [H, N] for N coordinates (320 bytes per float32
/// parameter); mean and square of "lstm-rnnprop". Weights in torch.nn.LSTMCell's layout (gates
/// input, forget, candidate, output): layers.{0,1}.{input,recurrent}_weight [4H, I],
/// layers.{0,1}.bias [4H], output.weight [1, H], output.bias [1].
///
///     auto rule = optim::make_rule("lstm-rnnprop", R"({"seed": 3})");
///
/// Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS 2016;
/// Lv et al., "Learning gradient descent: better generalization and longer horizons", ICML 2017
/// (RNNprop; we leave out the dense layer before its LSTM). Throws InputError for options out of
/// range.
class LstmRule : public UpdateRule {
 public:
  /// The rule with freshly drawn weights.
  LstmRule(LstmFeatures features, const LstmOptions& options);

  std::string name() const override;
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  /// Always refused: what an LSTM makes of a zero gradient is not zero.
  std::shared_ptr<const UpdateRule> elementwise() const override;
  double default_lr() const override { return 1.0; }

  /// lr output_scale.
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  NamedTensors weights() const override { return weights_; }
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override;

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;

  /// In place, through the fused kernel for everything but float64 and other devices than the CPU.
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;

 private:
  ops::LstmWeights cell_weights(const at::TensorOptions& options) const;

  /// [2, N] of all gradients, one after the other; `moments` hold mean and square after this step.
  at::Tensor features(const std::vector<at::Tensor>& grads,
                      const std::vector<ParamState>& moments) const;

  /// The updates [N] that belong to the outputs [N] of the network.
  at::Tensor scaled(const at::Tensor& output, double lr) const;

  void update_group(const std::vector<size_t>& indices, at::TensorList grads, at::TensorList params,
                    const StepOptions& options, UpdateResult& result) const;

  LstmFeatures features_;
  LstmOptions options_;
  NamedTensors weights_;
};

/// Registry entries "lstm" and "lstm-rnnprop".
std::shared_ptr<UpdateRule> make_lstm(const std::string& options_json);
std::shared_ptr<UpdateRule> make_lstm_rnnprop(const std::string& options_json);

}  // namespace mnemosyne::optim
