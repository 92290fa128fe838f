#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mnemosyne::io {

/// A picture of C channels, grey (1) or red, green and blue (3), 8 bits each.
struct Image {
  int64_t height = 0, width = 0, channels = 0;
  std::string pixels;  ///< [height, width, channels], rows from the top.
};

/// A PNG or JPEG file, told by its first bytes and not by its name. As with Pillow's
/// convert("RGB"), palettes and fewer bits become full values, of 16 bits the upper 8 count,
/// transparency and the profile of colours are left out; grey images stay grey.
///
/// InputError that names the file when it is neither, is damaged or ends too early, has more than
/// 2^26 pixels or is a JPEG file in CMYK, and when the library was built without libpng or libjpeg.
///
///     io::Image image = io::read_image("photos/cat/1.jpg");
Image read_image(const std::string& path);

/// The same of bytes in memory; `name` is what errors call them.
Image decode_image(std::string_view bytes, const std::string& name);

/// Whether the library was built with libpng and with libjpeg.
bool has_png();
bool has_jpeg();

}  // namespace mnemosyne::io
