#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "mnemosyne/nn/position/damped_position.h"
#include "mnemosyne/nn/position/fft_attention.h"
#include "mnemosyne/nn/position/fourier_position.h"
#include "mnemosyne/nn/position/position.h"
#include "mnemosyne/nn/position/position_bias.h"
#include "mnemosyne/nn/position/rotary_position.h"

namespace mnemosyne::nn {

/// All position encodings of attention, by their options; the first: none. What a new one needs
/// besides its file is its header above and its options here. Linear attention and softmax
/// attention refuse those that are not for them (InputError).
using AnyPosition =
    std::variant<std::monostate, RotaryPositionOptions, AlibiOptions, BucketBiasOptions,
                 FftMaskOptions, FourierPositionOptions, DampedPositionOptions>;

/// The encoding that options ask for, of linear or of softmax attention.
std::shared_ptr<const Position> make_any_position(const AnyPosition& options, bool linear,
                                                  const PositionSite& site);

/// The names that AttentionOptions has for what is for linear or for softmax attention: "none",
/// "absolute" (the model adds it to its embeddings, attention gets none), and those of
/// `AnyPosition` in its order.
std::vector<std::string> position_names(bool linear);

/// What AttentionOptions::position says, at its site.
AnyPosition chosen_position(const AttentionOptions& options, const AttentionSite& site);

/// Calls `visit` with defaults of every encoding, one after the other.
template <typename Visit>
void for_each_position(const Visit& visit) {
  const auto each = [&]<typename... Options>(std::variant<std::monostate, Options...>*) {
    (visit(Options{}), ...);
  };
  each(static_cast<AnyPosition*>(nullptr));
}

}  // namespace mnemosyne::nn
