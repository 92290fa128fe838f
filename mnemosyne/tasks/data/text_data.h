#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mnemosyne::tasks {

/// A text as numbers of characters or words, in two parts. Of one file the first 90 % are for
/// training, the rest for validation.
struct TextData {
  at::Tensor train;       ///< [N], uint8 (up to 256 characters) or int32, each below `vocabulary`.
  at::Tensor validation;  ///< The same.
  int64_t vocabulary = 0;
  std::vector<std::string> symbols = {};  ///< What each number stands for, in UTF-8; may be empty.
};

/// Numbers the distinct characters of a text in the order of their code points. A character is a
/// code point of UTF-8, control characters, carriage returns and zeros included; only a byte order
/// mark at the start is none. InputError for bytes that are no UTF-8, with the offset of the first
/// of them, for fewer than two distinct characters and for fewer than 1,000 in all; `name` is what
/// the error calls the source.
TextData encode_text(std::string_view text, const std::string& name);

/// A checksum of both parts and of what the numbers stand for: two texts that differ have two.
std::string text_fingerprint(const TextData& text);

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
