#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/nn/attention.h"

namespace mnemosyne::nn {

/// Which attention a model has: one choice of everything that can be compared.
struct AttentionOptions {
  std::string kind = "linear";  ///< "linear" or "softmax".
  /// For both: "none", "absolute" (the model adds it to the embeddings), "rope", "flt"
  /// (FourierPosition) and, when causal, "damped" (DampedPosition). For "linear": "fft" (the mask
  /// of flt by fast Fourier transforms). For "softmax": "alibi" and "t5".
  std::string position = "flt";
  int64_t num_kv_heads = 0;          ///< Heads of keys and values; 0: as many as of queries.
  std::string feature_map = "relu";  ///< Of "linear", with the next: see LinearAttention.
  int64_t num_features = 64;
  std::string spectrum = "gaussian_mixture";  ///< Of "flt" and "fft": FourierPositionOptions::kind.
  std::string coupling = "multiplicative";    ///< Of "flt" with "linear", with the next two.
  std::string factor = "exp";
  int64_t num_frequencies = 16;
  /// Terms of a mask; 0: 4 of "damped", 8 of "flt" and "fft" or what of it divides
  /// num_frequencies.
  int64_t num_components = 0;
  int64_t exact_length = 0;        ///< Of "flt" with "linear": see LinearAttentionOptions.
  double initial_amplitude = 1.0;  ///< Of "flt" and "fft": f(0) at the start, so that widths learn.
  double max_bound = 0.0;  ///< Of f; 0: 1 for "concatenate" with "favor+" or "hyp+", else none.
  bool phase = false;      ///< Of "flt" and "fft": masks with f(z) != f(-z).
};

/// Where attention stands: what a model knows and its user need not say.
struct AttentionSite {
  int64_t embed_dim = 64;
  int64_t num_heads = 4;
  bool causal = false;
  int64_t position_dim = 1;
  double min_width = 1.0;  ///< Of masks at the start, in units of position, with the next.
  double max_width = 64.0;
  std::optional<double> extent = 256.0;  ///< The largest offset per axis: see FourierPosition.
  bool rotation_invariant = false;       ///< Masks are functions of the distance (position_dim 3).
  std::vector<int64_t> grid{};     ///< Tokens per axis where they are on a grid; "fft" needs it.
  std::optional<uint64_t> seed{};  ///< None: from torch's default generator.
};

/// InputError, one line that names the option, for every combination that does not exist.
void validate(const AttentionOptions& options, const AttentionSite& site);

/// The attention that options ask for. Parameters with the same names have the same initial values
/// whatever the position.
std::shared_ptr<Attention> make_attention(const AttentionOptions& options,
                                          const AttentionSite& site);

}  // namespace mnemosyne::nn
