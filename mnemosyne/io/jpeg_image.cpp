#include "mnemosyne/io/image_decoder.h"

#ifdef MNEMOSYNE_HAS_JPEG
#include <jerror.h>
#include <jpeglib.h>

#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it before itself.
#endif

namespace mnemosyne::io {

#ifdef MNEMOSYNE_HAS_JPEG

namespace {

/// libjpeg's structures and what it says when it cannot go on, freed on every way out.
struct Reader {
  Reader() {
    jpeg.err = jpeg_std_error(&errors);
    jpeg.client_data = this;
    errors.error_exit = on_error;
    errors.emit_message = on_message;
    errors.output_message = [](j_common_ptr) {};  // libjpeg would print it.
  }
  ~Reader() { jpeg_destroy_decompress(&jpeg); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  [[noreturn]] static void on_error(j_common_ptr jpeg) {
    auto* reader = static_cast<Reader*>(jpeg->client_data);
    jpeg->err->format_message(jpeg, reader->message);
    std::longjmp(reader->jump, 1);
  }

  // Damage is only a warning to libjpeg, which goes on in grey. These are none: bytes between the
  // segments, and marks of other programs.
  static void on_message(j_common_ptr jpeg, int level) {
    const int code = jpeg->err->msg_code;
    const bool harmless = code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM ||
                          code == JWRN_JFIF_MAJOR || code == JWRN_TOO_MUCH_DATA;
    if (level < 0 && !harmless) on_error(jpeg);
  }

  jpeg_decompress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = {};
};

// The two functions below hold nothing with a destructor: an error jumps out of them.

bool read_header(Reader& reader, const unsigned char* bytes, size_t size) {
  if (setjmp(reader.jump)) return false;
  jpeg_create_decompress(&reader.jpeg);
  jpeg_mem_src(&reader.jpeg, bytes, size);
  jpeg_read_header(&reader.jpeg, TRUE);
  return true;
}

bool read_rows(Reader& reader, unsigned char* pixels, size_t row_size) {
  if (setjmp(reader.jump)) return false;
  jpeg_start_decompress(&reader.jpeg);
  while (reader.jpeg.output_scanline < reader.jpeg.output_height) {
    JSAMPROW row = pixels + reader.jpeg.output_scanline * row_size;
    jpeg_read_scanlines(&reader.jpeg, &row, 1);
  }
  jpeg_finish_decompress(&reader.jpeg);
  return true;
}

}  // namespace

Image decode_jpeg(std::string_view bytes, const std::string& name) {
  Reader reader;
  const auto damaged = [&] {
    refuse_image(name, "a valid JPEG image", std::string("which is damaged: ") + reader.message);
  };
  if (!read_header(reader, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size())) {
    damaged();
  }
  jpeg_decompress_struct& jpeg = reader.jpeg;
  if (jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK) {
    refuse_image(name, "a JPEG image in grey or colours of screens", "which is in CMYK");
  }
  const bool grey = jpeg.jpeg_color_space == JCS_GRAYSCALE;
  jpeg.out_color_space = grey ? JCS_GRAYSCALE : JCS_RGB;
  Image image = sized_image(jpeg.image_height, jpeg.image_width, grey ? 1 : 3, name);
  if (!read_rows(reader, reinterpret_cast<unsigned char*>(image.pixels.data()),
                 static_cast<size_t>(image.width * image.channels))) {
    damaged();
  }
  return image;
}

bool has_jpeg() { return true; }

#else

Image decode_jpeg(std::string_view, const std::string& name) {
  refuse_image(name, "no JPEG image, as this library was built without libjpeg (libjpeg-dev)",
               "which is one");
}

bool has_jpeg() { return false; }

#endif

}  // namespace mnemosyne::io
