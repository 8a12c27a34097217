// Pixels of a picture's file, as an export's manifest says how they are made (cobra/models/vision/square.py).
#pragma once

#include <string>
#include <vector>

#include "json.h"
#include "resize.h"

namespace cobra {

// How the pixels of one encoder are made of a picture.
struct Plane {
  enum class Way { kSquash, kCrop, kLetterbox } way;
  int side, shorter;
  bool floors, equal_bars;
  uint8_t colour[3];
  float mean[3], std[3];

  // Refused where it describes none.
  explicit Plane(const Json& said);
  // A picture to side x side places.
  Image square(const Image& image) const;
  // The square to values (3, side, side).
  std::vector<float> normalized(const Image& square) const;
};

// A file of JPEG, PNG or BMP: upright, on white. Refused where it is none, damaged or too large.
Image read_picture(const std::string& path);

}  // namespace cobra
