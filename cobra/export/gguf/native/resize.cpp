#include "resize.h"

#include <algorithm>
#include <cmath>

namespace cobra {
namespace {

// weights are whole numbers of this unit
constexpr int kBits = 22;
// of the kernel, to either side
constexpr double kReach = 2;

// Keys' cubic with a = -1/2.
double cubic(double x) {
  x = std::fabs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// The places that one of the result is made of, and how much of each.
struct Share {
  int first;
  std::vector<int32_t> weights;
};

std::vector<Share> shares(int from, int to) {
  const double scale = double(from) / to, wide = std::max(scale, 1.0), reach = kReach * wide;
  std::vector<Share> all;
  for (int place = 0; place < to; ++place) {
    const double centre = (place + 0.5) * scale;
    const int first = std::max(0, int(centre - reach + 0.5)), end = std::min(from, int(centre + reach + 0.5));
    std::vector<double> exact;
    double sum = 0;
    for (int x = first; x < end; ++x) {
      exact.push_back(cubic((x - centre + 0.5) / wide));
      sum += exact.back();
    }
    Share share{first, {}};
    for (const double weight : exact) {
      const double scaled = (sum != 0 ? weight / sum : weight) * (1 << kBits);
      share.weights.push_back(int32_t(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
    all.push_back(std::move(share));
  }
  return all;
}

// 32 bits hold it: weights of a place add up to 1.3 at most, without their signs
uint8_t rounded(int32_t sum) { return uint8_t(std::clamp((sum + (1 << (kBits - 1))) >> kBits, 0, 255)); }

// A row or a column of the result, of places that are `step` bytes apart.
void weigh(const Share& share, const uint8_t* from, size_t step, uint8_t* to) {
  int32_t sums[3] = {0, 0, 0};
  for (size_t n = 0; n < share.weights.size(); ++n)
    for (size_t c = 0; c < 3; ++c) sums[c] += share.weights[n] * from[n * step + c];
  for (size_t c = 0; c < 3; ++c) to[c] = rounded(sums[c]);
}

Image across(const Image& image, int width) {
  Image made(width, image.height);
  const std::vector<Share> all = shares(image.width, width);
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < width; ++x) weigh(all[size_t(x)], image.at(all[size_t(x)].first, y), 3, made.at(x, y));
  return made;
}

Image down(const Image& image, int height) {
  Image made(image.width, height);
  const std::vector<Share> all = shares(image.height, height);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < image.width; ++x)
      weigh(all[size_t(y)], image.at(x, all[size_t(y)].first), size_t(image.width) * 3, made.at(x, y));
  return made;
}

}  // namespace

Image resized(const Image& image, int width, int height) {
  // Pillow 13's order, by which roundings differ
  const int narrower = image.width - width, lower = image.height - height;
  if (narrower != 0 && lower > 0 && lower > 2 * narrower) return across(down(image, height), width);
  Image made = image.width == width ? image : across(image, width);
  return image.height == height ? made : down(made, height);
}

Image reduced(const Image& image, int factor) {
  if (factor == 1) return image;
  Image made((image.width + factor - 1) / factor, (image.height + factor - 1) / factor);
  for (int y = 0; y < made.height; ++y)
    for (int x = 0; x < made.width; ++x) {
      const int right = std::min(image.width, (x + 1) * factor), bottom = std::min(image.height, (y + 1) * factor);
      const int64_t places = int64_t(right - x * factor) * (bottom - y * factor);
      for (int c = 0; c < 3; ++c) {
        int64_t sum = places / 2;
        for (int v = y * factor; v < bottom; ++v)
          for (int u = x * factor; u < right; ++u) sum += image.at(u, v)[c];
        made.at(x, y)[c] = uint8_t(sum / places);
      }
    }
  return made;
}

Image cropped(const Image& image, int left, int top, int width, int height) {
  Image made(width, height);
  const int first = std::max(0, -left), end = std::min(width, image.width - left);
  for (int y = std::max(0, -top); y < std::min(height, image.height - top) && first < end; ++y)
    std::copy_n(image.at(left + first, top + y), size_t(end - first) * 3, made.at(first, y));
  return made;
}

}  // namespace cobra
