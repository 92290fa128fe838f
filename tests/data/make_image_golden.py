"""Writes image_golden.h: small images of every kind, and what Pillow reads in them.

.venv/bin/python tests/data/make_image_golden.py > tests/data/image_golden.h
"""

import io

import numpy as np
from PIL import Image

HEAD = """#pragma once

#include <cstdint>
#include <vector>

namespace mnemosyne::testing {

// Made by tests/data/make_image_golden.py with Pillow.

struct GoldenImage {
  const char* name;
  int64_t height, width, channels;
  const char *file, *pixels;  // In hexadecimal digits.
};

inline const std::vector<GoldenImage>& golden_images() {
  // clang-format off
  static const std::vector<GoldenImage> images = {
"""


def colors(height, width, channels, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return noise if channels > 1 else noise[:, :, 0]


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 9 + 40, y * 11 + 30, (x + y) * 5 + 90], axis=2).astype(np.uint8)


def images():
    rgb = Image.fromarray(colors(3, 5, 3))
    yield "png_grey", Image.fromarray(colors(3, 5, 1)), "png", {}
    yield "png_bits", Image.fromarray(colors(3, 5, 1) > 127), "png", {}
    yield "png_grey_alpha", Image.fromarray(colors(3, 5, 2), "LA"), "png", {}
    yield "png_grey_16", Image.fromarray(colors(3, 5, 1).astype(np.uint16) * 257 + 90), "png", {}
    yield "png_rgb", rgb, "png", {}
    yield "png_rgba", Image.fromarray(colors(3, 5, 4)), "png", {}
    yield "png_palette", rgb.quantize(7), "png", {}
    yield "png_palette_clear", rgb.quantize(7), "png", {"transparency": 2}
    yield "png_rgb_clear", rgb, "png", {"transparency": tuple(map(int, colors(3, 5, 3)[1, 2]))}
    yield "jpeg_grey", Image.fromarray(smooth(9, 11)[:, :, 0]), "jpeg", {"quality": 90}
    yield "jpeg_444", Image.fromarray(smooth(9, 11)), "jpeg", {"quality": 90, "subsampling": 0}
    yield "jpeg_420", Image.fromarray(smooth(9, 11)), "jpeg", {"quality": 90, "subsampling": 2}
    yield "jpeg_progressive", Image.fromarray(smooth(9, 11)), "jpeg", {"progressive": True}


def pixels(image):
    if image.mode == "I;16":
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[:, :, None]
    grey = image.mode in ("1", "L", "LA")
    array = np.asarray(image.convert("L" if grey else "RGB"))
    return array[:, :, None] if grey else array


def main():
    print(HEAD, end="")
    for name, image, kind, options in images():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        shape = pixels(Image.open(buffer)).shape
        found = pixels(Image.open(buffer)).tobytes().hex()
        print(f'      {{"{name}", {shape[0]}, {shape[1]}, {shape[2]},')
        text = buffer.getvalue().hex()
        lines = [f'       "{text[i : i + 120]}"' for i in range(0, len(text), 120)]
        print("\n".join(lines) + ",")
        lines = [f'       "{found[i : i + 120]}"' for i in range(0, len(found), 120)]
        print("\n".join(lines) + "},")
    print("  };\n  // clang-format on\n  return images;\n}\n\n}  // namespace mnemosyne::testing")


if __name__ == "__main__":
    main()
