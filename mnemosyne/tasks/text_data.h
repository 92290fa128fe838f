#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace mnemosyne::tasks {

/// A text as numbers of characters or words, in two parts. Of characters the first 90 % are for
/// training, the rest for validation.
struct TextData {
  at::Tensor train;       ///< [N], uint8 (characters) or int32 (words), each below `vocabulary`.
  at::Tensor validation;  ///< The same.
  int64_t vocabulary = 0;
};

/// Numbers the distinct bytes of a text in their order. InputError when there are fewer than two of
/// them or fewer than 1,000 characters; `name` is what the error calls the source.
TextData encode_text(std::string_view text, const std::string& name);

struct SyntheticTextOptions {
  int64_t alphabet = 32;     ///< Distinct characters, 4 to 256: a space, a full stop, and letters.
  int64_t length = 100'000;  ///< Characters, at least 1,000.
  int64_t words = 300;       ///< Distinct words, at least 16.
};

/// A language of its own for every seed, with something to learn at every scale: letters follow one
/// another inside a word as in a sparse Markov chain, words have Zipf's frequencies, a word depends
/// on the two before it, and topics that last some sixty words have their own favourites.
TextData synthetic_text(uint64_t seed, const SyntheticTextOptions& options = {});

}  // namespace mnemosyne::tasks
