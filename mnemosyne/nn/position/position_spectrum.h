#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/position/position_names.h"
#include "mnemosyne/ops/fourier_features.h"

namespace mnemosyne::nn {

/// Options of a FourierPosition. Lengths are in units of position: tokens, pixels, Angstrom.
struct FourierPositionOptions {
  static constexpr PositionNames kNames{"flt", "FourierPosition", PositionUse::kBoth};

  int64_t num_heads = 1;     ///< H, each with its own mask.
  int64_t position_dim = 1;  ///< D.
  /// What f is:
  ///     "gaussian_mixture"  sum_t A_t exp(-2 pi^2 sigma_t^2 |z|^2) cos(2 pi mu_t.z), all learned
  ///     "shift_invariant"   sum_t A_t k(|z| / w_t), k a positive definite `kernel`
  ///     "local"             sum_t A_t of windows of fixed widths, see `window`
  ///     "neural"            fixed frequencies weighted by a network of the frequency
  std::string kind = "gaussian_mixture";
  /// "concatenate": features of f, to stand beside query and key. "multiplicative": features of a
  /// factor of the attention weight, see `factor`.
  std::string coupling = "concatenate";
  /// Of "multiplicative": "exp" (e^f, by its `num_frequencies` largest waves on a grid; D <= 3),
  /// "square" ((1 + f)^2, never negative, any D) or "linear" (1 + f, signed, any D).
  std::string factor = "exp";
  int64_t num_frequencies = 32;     ///< R.
  int64_t num_components = 8;       ///< T, terms of f per head; R is a multiple of it where drawn.
  std::string kernel = "gaussian";  ///< "gaussian", "laplace" (e^-|z|_1) or "matern".
  double matern_nu = 1.5;           ///< 0.5, 1.5 or 2.5.
  /// "dirichlet", "tent", "box", "l2_ball", "l1_ball", or "auto": dirichlet on a line, box
  /// elsewhere.
  std::string window = "auto";
  double smoothing = 0.25;  ///< Of box and balls: standard deviation over half-width.
  double min_width = 1.0;   ///< Of the narrowest term: one token.
  double max_width = 64.0;  ///< Of the widest: a quarter of the length. Log-spaced between.
  /// The largest offset per axis, of factor "exp" and of drawn-out "dirichlet" waves, which repeat
  /// beyond it: features refuse larger ones. None: the grid of "exp" grows with the input.
  std::optional<double> extent = 256.0;
  double position_scale = 1.0;     ///< Positions are multiplied by it first; lengths are after it.
  double initial_amplitude = 0.0;  ///< sum_t A_t at the start; zero starts without a mask.
  double max_bound = 0.0;          ///< If positive, f is scaled down to sum |weights| <= it.
  std::string draws = "quasi_random";  ///< Or "orthogonal" or "independent" (frequency_draws.h).
  bool phase = false;                  ///< Learned phases: f(z) != f(-z). Mixture (random at the
                                       ///< start) and neural only.
  bool rotation_invariant = false;     ///< D = 3: centres become shells. Mixture only.
  bool released_code = false;          ///< The estimator of the authors' code, see FourierPosition.
  int64_t hidden = 32;                 ///< Width of the network of "neural".
  /// Of the frozen draws and the initial parameters; none: from torch's default generator.
  std::optional<uint64_t> seed{};

  /// Whether features are of e^f on a grid, from the exact f, and not of the sum of drawn waves.
  bool is_exact() const { return coupling == "multiplicative" && factor == "exp"; }
};

void bind(Fields& visit, FourierPositionOptions& options);

/// Those that do not depend on where attention stands, but for `kind` and `num_components`.
void bind_choice(Fields& visit, FourierPositionOptions& options);

/// A learned spectrum: parameters, frozen draws, the function f that they stand for and the sum of
/// waves that estimates it.
class PositionSpectrum : public torch::nn::Module, public TensorFields {
 public:
  /// f at offsets [P, D]: [H, P]. The closed form, or where the frequencies are fixed and part of
  /// the definition their sum. Differentiable in the parameters.
  virtual at::Tensor mask(const at::Tensor& offsets) const = 0;

  /// The estimate of f.
  virtual ops::SpectralSum sum() const = 0;

  /// R of `sum`: num_frequencies, or fewer where a window has no more.
  virtual int64_t num_waves() const = 0;

  /// Whether the estimate repeats beyond the extent.
  virtual bool is_periodic() const { return false; }
};

/// The spectrum that options ask for; InputError when there is none.
std::shared_ptr<PositionSpectrum> make_position_spectrum(const FourierPositionOptions& options);

/// [T], float64: log-spaced from min_width to max_width; max_width alone when there is one.
at::Tensor log_spaced_widths(const FourierPositionOptions& options);

/// Parameters in at least float32.
at::Tensor at_least_float(const at::Tensor& parameter);

}  // namespace mnemosyne::nn
