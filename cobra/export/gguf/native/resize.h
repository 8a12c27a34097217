// Pictures of bytes, resized as Pillow does.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace cobra {

struct Image {
  int width, height;
  // red, green, blue of each place, row by row
  std::vector<uint8_t> bytes;

  Image(int width, int height) : width(width), height(height), bytes(size_t(width) * size_t(height) * 3) {}
  uint8_t* at(int x, int y) { return bytes.data() + (size_t(y) * size_t(width) + size_t(x)) * 3; }
  const uint8_t* at(int x, int y) const { return const_cast<Image*>(this)->at(x, y); }
};

// Bicubic and antialiased, in two passes that each round to bytes.
Image resized(const Image& image, int width, int height);

// Means of factor x factor places; those of the last column and row may be of fewer.
Image reduced(const Image& image, int factor);

// The place whose first corner is at (left, top); black where that is beyond the picture.
Image cropped(const Image& image, int left, int top, int width, int height);

}  // namespace cobra
