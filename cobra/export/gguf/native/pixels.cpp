#include "pixels.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS 65500
#include <stb/stb_image.h>

namespace cobra {
namespace {

// as cobra/config/limits.py; a file is at most as large as its bytes in memory
constexpr int64_t kMostPixels = 120000000, kMostSide = 65500, kMostBytes = 4 * kMostPixels;
constexpr int kMostOfSquare = 8192;

using Bytes = std::vector<uint8_t>;

Bytes read(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  check(bool(file), path + " does not exist, or cannot be read");
  const std::streamoff size = file.tellg();
  check(0 < size && size <= kMostBytes, path + " is empty, or too large for a picture");
  Bytes bytes(static_cast<size_t>(size));
  file.seekg(0).read(reinterpret_cast<char*>(bytes.data()), size);
  check(bool(file), path + " cannot be read");
  return bytes;
}

// Whole numbers in bytes, of either order; 0 beyond their end.
struct Numbers {
  const uint8_t* begin;
  size_t size;
  bool is_little;

  uint32_t at(size_t place, size_t length) const {
    if (place + length > size) return 0;
    uint32_t value = 0;
    for (size_t n = 0; n < length; ++n) value = value << 8 | begin[place + (is_little ? length - 1 - n : n)];
    return value;
  }
};

// How a camera was held, 1 to 8, of an Exif block; 1 where it does not say.
int orientation_of_exif(const uint8_t* begin, size_t size) {
  constexpr uint32_t kOrientation = 0x0112;
  const Numbers exif{begin, size, size > 0 && *begin == 'I'};
  const size_t directory = exif.at(4, 4);
  const uint32_t entries = exif.at(directory, 2);
  for (uint32_t entry = 0; entry < entries; ++entry) {
    const size_t place = directory + 2 + size_t(entry) * 12;
    if (exif.at(place, 2) == kOrientation) return int(exif.at(place + 8, 2));
  }
  return 1;
}

struct Jpeg {
  // 0 where there is no Exif block
  int orientation = 0;
  // where its segments end, and data of the picture begins
  size_t data = 2;
};

Jpeg segments_of_jpeg(const Bytes& file) {
  const Numbers numbers{file.data(), file.size(), false};
  Jpeg found;
  for (size_t place = 2; numbers.at(place, 1) == 0xFF; found.data = place) {
    // any number of them may stand before a marker
    while (numbers.at(place + 1, 1) == 0xFF) ++place;
    const size_t length = numbers.at(place + 2, 2), data = place + 4, end = place + 2 + length;
    if (numbers.at(place + 1, 1) == 0xDA || length < 2 || end > file.size()) break;
    const bool is_exif =
        numbers.at(place + 1, 1) == 0xE1 && length >= 16 && std::equal(&file[data], &file[data] + 6, "Exif\0");
    // the first counts
    if (is_exif && !found.orientation) found.orientation = orientation_of_exif(&file[data + 6], end - data - 6);
    place = end;
  }
  return found;
}

int orientation_of_png(const Bytes& file) {
  const Numbers numbers{file.data(), file.size(), false};
  for (size_t place = 8; place + 12 <= file.size();) {
    const size_t length = numbers.at(place, 4), data = place + 8;
    if (length > file.size() - data) break;
    if (std::equal(&file[place + 4], &file[data], "eXIf")) return orientation_of_exif(&file[data], length);
    place = data + length + 4;
  }
  return 1;
}

// Whether all rows of a BMP are there: stb fills up those that are not.
bool is_whole_bmp(const Bytes& file, int width, int height) {
  const Numbers numbers{file.data(), file.size(), true};
  constexpr uint32_t kOldHeader = 12;
  const int64_t bits = numbers.at(numbers.at(14, 4) == kOldHeader ? 24 : 28, 2);
  const int64_t row = (width * bits + 31) / 32 * 4;
  return numbers.at(10, 4) + row * height <= int64_t(file.size());
}

// How a camera was held, of a JPEG or PNG file; refused where a JPEG is cut short.
int orientation(const Bytes& file, const std::string& path) {
  constexpr uint8_t kEnd[] = {0xFF, 0xD9};
  const uint32_t kind = Numbers{file.data(), file.size(), false}.at(0, 2);
  if (kind == 0x8950) return orientation_of_png(file);
  if (kind != 0xFFD8) return 1;
  const Jpeg jpeg = segments_of_jpeg(file);
  // stb fills up what is not there; a preview among the segments has an end of its own
  check(std::search(file.begin() + std::ptrdiff_t(jpeg.data), file.end(), kEnd, kEnd + 2) != file.end(),
        path + " is cut short: fetch it again");
  return jpeg.orientation;
}

Image turned(const Image& image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool is_across = orientation >= 5;
  Image made(is_across ? image.height : image.width, is_across ? image.width : image.height);
  for (int y = 0; y < made.height; ++y)
    for (int x = 0; x < made.width; ++x) {
      int u = is_across ? y : x, v = is_across ? x : y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) u = image.width - 1 - u;
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) v = image.height - 1 - v;
      std::copy_n(image.at(u, v), 3, made.at(x, y));
    }
  return made;
}

// On white, by how opaque a place is.
uint8_t laid(uint8_t value, uint8_t opaque) {
  const unsigned sum = 255u * (255u - opaque) + unsigned(value) * opaque + 128;
  return uint8_t(((sum >> 8) + sum) >> 8);
}

// Half of a difference, which may be negative: rounded down, or else to even.
int half(int difference, bool floors) {
  return floors ? int(std::floor(difference / 2.0)) : int(std::nearbyint(difference / 2.0));
}

Image centre(const Image& image, int width, int height, bool floors) {
  if (image.width == width && image.height == height) return image;
  return cropped(image, half(image.width - width, floors), half(image.height - height, floors), width, height);
}

Image shortened_and_cropped(Image image, const Plane& plane) {
  // resized, a strip of 1 x 60000 places would take gigabytes
  const int most = 64 * std::min(image.width, image.height);
  image = centre(image, std::min(image.width, most), std::min(image.height, most), plane.floors);
  const int64_t least = std::min(image.width, image.height);
  image = resized(image, int(int64_t(plane.shorter) * image.width / least),
                  int(int64_t(plane.shorter) * image.height / least));
  return centre(image, plane.side, plane.side, plane.floors);
}

Image padded(const Image& image, const Plane& plane) {
  const int longer = std::max(image.width, image.height);
  const int left = (longer - image.width) / 2, top = (longer - image.height) / 2;
  Image made(plane.equal_bars ? image.width + 2 * left : longer, plane.equal_bars ? image.height + 2 * top : longer);
  for (size_t n = 0; n < made.bytes.size(); ++n) made.bytes[n] = plane.colour[n % 3];
  for (int y = 0; y < image.height; ++y) std::copy_n(image.at(0, y), size_t(image.width) * 3, made.at(left, top + y));
  return made;
}

}  // namespace

Plane::Plane(const Json& said) {
  const std::string& name = said.at("way").get_ref<const std::string&>();
  check(name == "squash" || name == "crop" || name == "letterbox", "pixels are made by " + name);
  way = name == "squash" ? Way::kSquash : name == "crop" ? Way::kCrop : Way::kLetterbox;
  side = int(whole(said.at("side"), 1, kMostOfSquare));
  shorter = way == Way::kSquash ? side : int(whole(said.at("shorter"), 1, kMostOfSquare));
  floors = way != Way::kSquash && said.at("floors").get<bool>();
  equal_bars = way == Way::kLetterbox && said.at("equal_bars").get<bool>();
  for (size_t c = 0; c < 3; ++c) {
    colour[c] = way == Way::kLetterbox ? uint8_t(whole(said.at("colour").at(c), 0, 255)) : 0;
    mean[c] = said.at("mean").at(c).get<float>();
    std[c] = said.at("std").at(c).get<float>();
  }
}

Image Plane::square(const Image& image) const {
  switch (way) {
    case Way::kSquash:
      return resized(image, side, side);
    case Way::kCrop:
      return shortened_and_cropped(image, *this);
    default:
      // padded, a picture of 60000 x 600 places would take gigabytes
      return shortened_and_cropped(
          padded(reduced(image, std::max(1, std::max(image.width, image.height) / 8192)), *this), *this);
  }
}

std::vector<float> Plane::normalized(const Image& square) const {
  std::vector<float> values;
  for (size_t c = 0; c < 3; ++c)
    for (size_t place = c; place < square.bytes.size(); place += 3)
      values.push_back((float(square.bytes[place]) / 255 - mean[c]) / std[c]);
  return values;
}

Image read_picture(const std::string& path) {
  const Bytes file = read(path);
  int width = 0, height = 0, kinds = 0;
  check(stbi_info_from_memory(file.data(), int(file.size()), &width, &height, &kinds) == 1,
        path + " is no JPEG, PNG or BMP that can be read: save it as one");
  check(std::max(width, height) <= kMostSide && int64_t(width) * height <= kMostPixels,
        path + " is " + std::to_string(width) + " x " + std::to_string(height) + ", too large: scale it down");
  const int held = orientation(file, path);
  check(file[0] != 'B' || is_whole_bmp(file, width, height), path + " is cut short: fetch it again");
  const std::unique_ptr<uint8_t, void (*)(void*)> decoded(
      stbi_load_from_memory(file.data(), int(file.size()), &width, &height, &kinds, 4), stbi_image_free);
  check(decoded != nullptr, path + " is damaged: fetch it again");
  Image image(width, height);
  for (size_t place = 0; place < image.bytes.size() / 3; ++place)
    for (size_t c = 0; c < 3; ++c)
      image.bytes[3 * place + c] = laid(decoded.get()[4 * place + c], decoded.get()[4 * place + 3]);
  return turned(image, held);
}

}  // namespace cobra
