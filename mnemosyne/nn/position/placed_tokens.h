#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace mnemosyne::nn {

// B = batch, L = tokens, P = dimension of positions.

/// Where tokens are, and which of them count.
struct PlacedTokens {
  at::Tensor positions{};  ///< [L,P] or [B,L,P], float64.
  at::Tensor
      has_position{};    ///< bool [L] or [B,L]: false for tokens that are nowhere; default all.
  at::Tensor mask{};     ///< bool [B,L]: false for padding; default all.
  bool is_line = false;  ///< The positions are those of a line, one after the other.
  /// Where such a line starts, if that is known without reading it.
  std::optional<int64_t> first{};

  /// has_position, all of it where it is undefined.
  at::Tensor placed() const;

  /// Tokens that are somewhere and no padding, [L] or [B,L]; undefined: all.
  at::Tensor counted() const;
};

/// Tokens x [B,L,E] at `positions` or, where these are undefined, on the line from `first`.
/// c10::Error for other shapes and dtypes.
PlacedTokens place_tokens(const at::Tensor& x, const at::Tensor& positions,
                          const at::Tensor& has_position, const at::Tensor& mask, int64_t first);

/// The smallest box around the tokens that count: both corners, [2,P] or [B,2,P], float64, without
/// a graph. Where none counts, the lower corner is infinite and the upper one minus that. Of a line
/// that counts as a whole it is a tensor of the CPU, whatever the device.
at::Tensor span_of(const PlacedTokens& tokens);

/// The smallest box around two; either may be undefined.
at::Tensor joined_span(const at::Tensor& one, const at::Tensor& other);

/// The largest offset per axis between a point of one box and a point of the other, of all axes and
/// examples: a tensor without axes.
at::Tensor largest_offset(const at::Tensor& one, const at::Tensor& other);

/// Tokens of a line in the order in which causal attention takes them.
struct OrderedLine {
  at::Tensor positions;  ///< [L] or [B,L].
  /// [1] or [B,1]: the last position so far; minus infinity in rows where no token has counted.
  at::Tensor last;
};

/// The line with what does not count taken out (P = 1): such a token takes over the position before
/// it, so that it neither turns time back nor lets it pass. Padding of a default line counts, as
/// its places are in order. `last` is that of an earlier segment, or undefined.
OrderedLine ordered_line(const PlacedTokens& tokens, const at::Tensor& last);

}  // namespace mnemosyne::nn
