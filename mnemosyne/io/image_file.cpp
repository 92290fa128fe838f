#include "mnemosyne/io/image_file.h"

#include "mnemosyne/io/file.h"
#include "mnemosyne/io/image_decoder.h"

namespace mnemosyne::io {

Image decode_image(std::string_view bytes, const std::string& name) {
  if (bytes.starts_with("\x89PNG")) return decode_png(bytes, name);
  if (bytes.starts_with("\xff\xd8\xff")) return decode_jpeg(bytes, name);
  refuse_image(name, "a PNG or JPEG image", "which begins as neither does");
}

Image read_image(const std::string& path) { return decode_image(read_file(path), path); }

}  // namespace mnemosyne::io
