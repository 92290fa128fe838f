#include "mnemosyne/io/image_decoder.h"

#ifdef MNEMOSYNE_HAS_PNG
#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>
#endif

namespace mnemosyne::io {

#ifdef MNEMOSYNE_HAS_PNG

namespace {

/// What libpng reads from, and what it says when it cannot go on.
struct Source {
  const char* next;
  size_t left;
  char message[200];
};

void read_bytes(png_structp png, png_bytep to, size_t count) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (count > source->left) png_error(png, "it ends too early");
  std::memcpy(to, source->next, count);
  source->next += count;
  source->left -= count;
}

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* source = static_cast<Source*>(png_get_error_ptr(png));
  std::snprintf(source->message, sizeof source->message, "%s", message);
  png_longjmp(png, 1);
}

// libpng would print it.
void on_warning(png_structp, png_const_charp) {}

// The two functions below hold nothing with a destructor: an error jumps out of them.

bool read_header(png_structp png, png_infop info) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_read_info(png, info);
  png_set_expand(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  return true;
}

bool read_rows(png_structp png, png_bytepp rows) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_read_image(png, rows);
  png_read_end(png, nullptr);
  return true;
}

/// libpng's two structures, freed on every way out.
struct Reader {
  explicit Reader(Source& source)
      : png(png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, on_error, on_warning)),
        info(png == nullptr ? nullptr : png_create_info_struct(png)) {
    if (info == nullptr) throw std::runtime_error("[png] libpng could not be started");
    png_set_read_fn(png, &source, read_bytes);
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  png_structp png;
  png_infop info;
};

}  // namespace

Image decode_png(std::string_view bytes, const std::string& name) {
  Source source{bytes.data(), bytes.size(), {}};
  const Reader reader(source);
  const auto damaged = [&] {
    refuse_image(name, "a valid PNG image", std::string("which is damaged: ") + source.message);
  };
  if (!read_header(reader.png, reader.info)) damaged();
  Image image = sized_image(png_get_image_height(reader.png, reader.info),
                            png_get_image_width(reader.png, reader.info),
                            png_get_channels(reader.png, reader.info), name);
  const auto row_size = static_cast<size_t>(image.width * image.channels);
  if (png_get_rowbytes(reader.png, reader.info) != row_size) {
    refuse_image(name, "a PNG image of 8 bits", "which has others");
  }
  std::vector<png_bytep> rows;
  for (int64_t row = 0; row < image.height; ++row) {
    rows.push_back(reinterpret_cast<png_bytep>(image.pixels.data()) + row * row_size);
  }
  if (!read_rows(reader.png, rows.data())) damaged();
  return image;
}

bool has_png() { return true; }

#else

Image decode_png(std::string_view, const std::string& name) {
  refuse_image(name, "no PNG image, as this library was built without libpng (libpng-dev)",
               "which is one");
}

bool has_png() { return false; }

#endif

}  // namespace mnemosyne::io
