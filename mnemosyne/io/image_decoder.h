#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/image_file.h"

namespace mnemosyne::io {

/// What decode_image is made of, each in the one file that sees its library.
Image decode_png(std::string_view bytes, const std::string& name);
Image decode_jpeg(std::string_view bytes, const std::string& name);

[[noreturn]] inline void refuse_image(const std::string& name, const std::string& expected,
                                      const std::string& why) {
  throw InputError("[image] expected " + expected + ", got " + name + ", " + why);
}

/// An image of this size without its pixels; InputError when there would be too many.
inline Image sized_image(int64_t height, int64_t width, int64_t channels, const std::string& name) {
  constexpr int64_t kMostPixels = int64_t{1} << 26;
  if (height < 1 || width < 1 || height > kMostPixels / width) {
    refuse_image(name, "an image of at most 2^26 pixels",
                 "which has " + std::to_string(height) + " x " + std::to_string(width));
  }
  Image image{height, width, channels, {}};
  image.pixels.resize(static_cast<size_t>(height * width * channels));
  return image;
}

}  // namespace mnemosyne::io
