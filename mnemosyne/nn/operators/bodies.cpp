#include "mnemosyne/nn/operators/bodies.h"

#include <map>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/position/damped_position.h"
#include "mnemosyne/nn/position/fourier_position.h"

namespace mnemosyne::nn {
namespace {

using Module = const torch::nn::Module*;
using Tensors = std::vector<at::Tensor>;

template <typename Impl>
const Impl& as(Module module, const char* expected) {
  const auto* found = dynamic_cast<const Impl*>(module);
  if (found == nullptr) {
    throw InputError("[module] expected " + std::string(expected) + ", got " +
                     (module == nullptr ? std::string("none") : module->name()));
  }
  return *found;
}

const FourierPositionImpl& fourier(Module module) {
  return as<FourierPositionImpl>(module, "a FourierPosition");
}

/// Calls `use` with the FourierPosition or the DampedPosition that it is.
template <typename Use>
auto with_position(Module module, const Use& use) {
  if (const auto* damped = dynamic_cast<const DampedPositionImpl*>(module)) return use(*damped);
  return use(fourier(module));
}

Tensors attention(Module module, const Tensors& x, bool) {
  return {as<Attention>(module, "an attention")
              .mix_heads({x[0], x[1], x[2]}, {.positions = x[3],
                                              .has_position = x[4],
                                              .key_padding_mask = x[5],
                                              .context = x[6],
                                              .context_positions = x[7],
                                              .context_has_position = x[8]})};
}

Tensors attention_segment(Module module, const Tensors& x, bool on_line) {
  LinearAttentionMemory memory{.sums = {x[5], x[6], x[7]}, .last = x[8], .length = 0, .span = x[9]};
  at::Tensor y =
      as<LinearAttentionImpl>(module, "linear attention")
          .mix_heads({x[0], x[1], x[2]},
                     {.positions = x[3], .on_line = on_line, .key_padding_mask = x[4]}, memory);
  return {y,           memory.sums.sums, memory.sums.normalizer, memory.sums.offset,
          memory.last, memory.span};
}

Tensors mask(Module module, const Tensors& x, bool) {
  return {with_position(module, [&](const auto& p) { return p.mask(x[0]); })};
}

Tensors factor(Module module, const Tensors& x, bool) {
  return {with_position(module, [&](const auto& p) { return p.factor(x[0]); })};
}

Tensors features(Module module, const Tensors& x, bool) {
  const ops::PositionFeatures result =
      with_position(module, [&](const auto& p) { return p.features(x[0], x[1]); });
  return {result.query, result.key, result.decay};
}

// Keys without positions of their own are the queries.
Tensors pair(Module module, const Tensors& x, bool) {
  const bool own = x[1].defined();
  const PlacedTokens keys{.positions = (own ? x[1] : x[0]).to(at::kDouble), .mask = x[2]};
  at::Tensor span = x[3];
  const ops::PositionFeatures result =
      own ? fourier(module).features({.positions = x[0].to(at::kDouble)}, keys, span)
          : fourier(module).features(keys, keys, span);
  return {result.query, result.key, span};
}

Tensors waves(Module module, const Tensors&, bool) {
  const ops::SpectralSum sum = fourier(module).spectrum().sum();
  if (!sum.sine.defined()) return {sum.frequencies, sum.cosine};
  return {sum.frequencies, (sum.cosine.square() + sum.sine.square()).sqrt()};
}

Tensors bound(Module module, const Tensors&, bool) { return {fourier(module).bound()}; }

Tensors join(Module module, const Tensors& x, bool) {
  const auto [query, key] = fourier(module).join(x[0], x[1], {x[2], x[3], {}});
  return {query, key};
}

Tensors line(Module, const Tensors& x, bool) {
  const OrderedLine result = ordered_line({.positions = x[0].to(at::kDouble), .mask = x[1]}, x[2]);
  return {result.positions, result.last};
}

Tensors decay(Module, const Tensors& x, bool) { return {ops::log_decay(x[0], x[1], x[2])}; }

}  // namespace

OperatorBody operator_body(const std::string& name) {
  static const std::map<std::string, OperatorBody> all = {{"attention", attention},
                                                          {"attention_segment", attention_segment},
                                                          {"position_mask", mask},
                                                          {"position_factor", factor},
                                                          {"position_features", features},
                                                          {"position_pair", pair},
                                                          {"position_waves", waves},
                                                          {"position_bound", bound},
                                                          {"position_join", join},
                                                          {"ordered_line", line},
                                                          {"log_decay", decay}};
  const auto found = all.find(name);
  if (found == all.end()) {
    throw InputError("[module] expected an operator of a module, got \"" + name + "\"");
  }
  return found->second;
}

}  // namespace mnemosyne::nn
