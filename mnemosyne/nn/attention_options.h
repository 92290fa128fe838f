#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/position/damped_position.h"
#include "mnemosyne/nn/position/position_spectrum.h"

namespace mnemosyne::nn {

/// Which attention a model has: one choice of everything that can be compared. What of the parts
/// says where attention stands, such as heads and widths, is taken from an AttentionSite.
struct AttentionOptions {
  std::string kind = "linear";  ///< "linear" or "softmax".
  /// For both: "none", "absolute" (the model adds it to the embeddings), "rope", "flt"
  /// (FourierPosition) and, when causal, "damped" (DampedPosition). For "linear": "fft" (the mask
  /// of flt by fast Fourier transforms). For "softmax": "alibi" and "t5".
  std::string position = "flt";
  int64_t num_kv_heads = 0;  ///< Heads of keys and values; 0: as many as of queries.
  /// Terms of a mask; 0: those of `damped`, or of `fourier` what of them divides num_frequencies.
  int64_t num_components = 0;
  LinearAttentionOptions linear{};  ///< Of "linear".
  /// Of "flt" and "fft"; `max_bound` 0: 1 for "concatenate" with "favor+" or "hyp+", else none.
  FourierPositionOptions fourier = strong_mask();
  DampedPositionOptions damped{};  ///< Of "damped".

  /// What `fourier` starts from: f(0) = 1, so that widths learn, and few waves of e^f.
  static FourierPositionOptions strong_mask() {
    return {.coupling = "multiplicative", .num_frequencies = 16, .initial_amplitude = 1.0};
  }
};

/// Also what of the parts does not depend on where attention stands; `fourier.kind` is "spectrum".
void bind(Fields& visit, AttentionOptions& options);

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

void bind(Fields& visit, AttentionSite& site);

/// InputError, one line that names the option, for every combination that does not exist.
void validate(const AttentionOptions& options, const AttentionSite& site);

/// The attention that options ask for. Parameters with the same names have the same initial values
/// whatever the position.
std::shared_ptr<Attention> make_attention(const AttentionOptions& options,
                                          const AttentionSite& site);

}  // namespace mnemosyne::nn
