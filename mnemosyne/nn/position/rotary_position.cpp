#include "mnemosyne/nn/position/rotary_position.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/sin.h>

#include <cmath>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/heads.h"

namespace mnemosyne::nn {

void bind(Fields& visit, RotaryPositionOptions& o) {
  visit("position_dim", o.position_dim);
  visit("base", o.base);
  visit("position_scale", o.position_scale);
}

namespace {

void check(const RotaryPositionOptions& options, int64_t depth) {
  if (options.position_dim < 1 || depth < 2 * options.position_dim) {
    throw InputError("[attention] expected heads of at least two dimensions per axis of the " +
                     std::string("position for rope, got ") + std::to_string(depth) + " for " +
                     std::to_string(options.position_dim) + " axes");
  }
  if (!(options.base > 1.0) || !(options.position_scale > 0.0)) {
    throw InputError("[attention] expected base > 1 and a positive position_scale for rope, got " +
                     std::to_string(options.base) + " and " +
                     std::to_string(options.position_scale));
  }
}

class RotaryPosition final : public Position {
 public:
  explicit RotaryPosition(const RotaryPositionOptions& options) : options_(options) {}

  at::Tensor turn(const at::Tensor& x, const PlacedTokens& places) const override {
    return rotate_by_position(x, zero_unplaced(places.positions, places.has_position), options_);
  }

 private:
  RotaryPositionOptions options_;
};

}  // namespace

at::Tensor rotate_by_position(const at::Tensor& x, const at::Tensor& positions,
                              const RotaryPositionOptions& options) {
  TORCH_CHECK(x.dim() == 4 && (positions.dim() == 2 || positions.dim() == 3) &&
                  positions.size(-1) == options.position_dim && positions.size(-2) == x.size(2),
              "[rotary_position] expected x [B,H,L,D] and positions [L,", options.position_dim,
              "] or [B,L,", options.position_dim, "], got ", x.sizes(), " and ", positions.sizes());
  const int64_t pairs = x.size(3) / (2 * options.position_dim),
                turned = pairs * options.position_dim;
  const at::Tensor place = (positions.to(at::kDouble) * options.position_scale).unsqueeze(-3);
  const at::Tensor exponent = at::arange(pairs, place.options()) / static_cast<double>(pairs);
  const at::Tensor frequency = (exponent * -std::log(options.base)).exp();
  // [..., 1, L, P, pairs] to [..., 1, L, P pairs], in float64: long sequences lose nothing.
  const at::Tensor angle = (place.unsqueeze(-1) * frequency).flatten(-2);
  const at::Tensor cosine = angle.cos().to(x.scalar_type()), sine = angle.sin().to(x.scalar_type());
  const at::Tensor first = x.narrow(-1, 0, turned), second = x.narrow(-1, turned, turned);
  const at::Tensor rest = x.narrow(-1, 2 * turned, x.size(3) - 2 * turned);
  return at::cat({first * cosine - second * sine, first * sine + second * cosine, rest}, -1);
}

std::shared_ptr<Position> make_position(const RotaryPositionOptions& options,
                                        const PositionSite& site) {
  check(options, site.depth);
  return std::make_shared<RotaryPosition>(options);
}

void choose(const AttentionOptions& /*chosen*/, const AttentionSite& site,
            RotaryPositionOptions& options) {
  options.position_dim = site.position_dim;
}

}  // namespace mnemosyne::nn
