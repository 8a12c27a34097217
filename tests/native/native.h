// What the native tests share: arrays of exactly the size they need (so that the sanitizer sees a step beyond), random
// numbers, comparison with references in double precision, and a loop over ISA levels and threads.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "abi.h"
#include "kernels.h"
#include "scan_abi.h"

#define COBRA_DECLARE(name, Arguments) extern "C" int cobra_##name(const void*);
COBRA_KERNELS(COBRA_DECLARE)
#undef COBRA_DECLARE
extern "C" int cobra_run_plan(const cobra::Call* calls, int64_t count, int64_t* failed);
extern "C" const char* cobra_level();
extern "C" const char* cobra_supported_level(int64_t index);
extern "C" int cobra_set_level(const char* name);
extern "C" const char* cobra_fingerprint();

namespace native {

using Values = std::vector<double>;

inline int failures = 0;
inline std::string where;

#define CHECK(condition)                                                                                   \
  do {                                                                                                     \
    if (!(condition)) {                                                                                    \
      ++native::failures;                                                                                  \
      fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, native::where.c_str(), #condition); \
    }                                                                                                      \
  } while (0)

// ---- random values that fp32 holds exactly

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 88172645463325252u) {}
  double uniform(double low, double high) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return double(float(low + (high - low) * (double(state_ >> 11) / 9007199254740992.0)));
  }
  Values values(int64_t count, double low = -1, double high = 1) {
    Values all(static_cast<size_t>(count));
    for (double& value : all) value = uniform(low, high);
    return all;
  }

 private:
  uint64_t state_;
};

// ---- arrays

inline float from_bf16(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// cuts: exact for values that `narrowed` gave
inline uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return uint16_t(bits >> 16);
}

// The values that a dtype can hold, near these.
inline Values narrowed(Values values, cobra::DType dtype) {
  if (dtype == cobra::BFLOAT16)
    for (double& value : values) value = from_bf16(to_bf16(float(value)));
  return values;
}

// A tensor of fp32 or bf16 with a gap of `gap` elements behind each row but the last; NaN until something is written.
class Tensor {
 public:
  explicit Tensor(std::vector<int64_t> dims, int64_t gap = 0, cobra::DType dtype = cobra::FLOAT32)
      : dims_(dims), dtype_(dtype), pitch_(dims.back() + gap) {
    rows_ = 1;
    for (size_t i = 0; i + 1 < dims.size(); ++i) rows_ *= dims[i];
    const int64_t size = rows_ == 0 ? 0 : (rows_ - 1) * pitch_ + dims.back();
    data_.reset(new char[size_t(size * width())]);
    // all bits set are a NaN in both
    memset(data_.get(), 0xff, size_t(size * width()));
  }
  Tensor(std::vector<int64_t> dims, const Values& values, int64_t gap = 0, cobra::DType dtype = cobra::FLOAT32)
      : Tensor(dims, gap, dtype) {
    for (size_t i = 0; i < values.size(); ++i) {
      const float value = float(values[i]);
      const uint16_t half = to_bf16(value);
      memcpy(place(int64_t(i)), dtype_ == cobra::BFLOAT16 ? static_cast<const void*>(&half) : &value, size_t(width()));
    }
  }

  Values values() {
    Values all(size_t(rows_ * dims_.back()));
    for (size_t i = 0; i < all.size(); ++i) {
      float value;
      uint16_t half;
      memcpy(&value, place(int64_t(i)), dtype_ == cobra::BFLOAT16 ? 0 : 4);
      memcpy(&half, place(int64_t(i)), 2);
      all[i] = dtype_ == cobra::BFLOAT16 ? from_bf16(half) : value;
    }
    return all;
  }

  cobra::Array array() {
    cobra::Array a = {data_.get(), dtype_, {0, 0, 0}};
    int64_t stride = pitch_;
    for (size_t i = dims_.size() - 1; i-- > 0;) {
      a.stride[i] = stride;
      stride *= dims_[i];
    }
    return a;
  }

 private:
  int64_t width() const { return dtype_ == cobra::BFLOAT16 ? 2 : 4; }
  // Where the i-th element in reading order lies.
  char* place(int64_t i) { return data_.get() + (i / dims_.back() * pitch_ + i % dims_.back()) * width(); }

  std::vector<int64_t> dims_;
  cobra::DType dtype_;
  int64_t pitch_, rows_;
  std::unique_ptr<char[]> data_;
};

// A matrix of integers, rows of `columns`.
template <typename T>
cobra::Array array_of(std::vector<T>& values, cobra::DType dtype, int64_t columns) {
  return {values.data(), dtype, {columns, 0, 0}};
}

inline cobra::Array absent() { return {nullptr, 0, {0, 0, 0}}; }

// ---- comparison

inline void expect_close(Values actual, const Values& expected, double tolerance, const char* what) {
  CHECK(actual.size() == expected.size());
  double largest = 1e-30, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = fmax(largest, fabs(expected[i]));
    // NaN must count as an error
    const double difference = fabs(actual[i] - expected[i]);
    if (!(difference <= error)) error = difference;
  }
  if (!(error <= tolerance * largest)) {
    ++failures;
    fprintf(stderr, "%s: %s differs by %g of %g\n", where.c_str(), what, error, largest);
  }
}

inline double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The gradient of `loss` by inputs[which] must agree with its slope along a random direction.
inline void expect_gradient(const std::function<double(const std::vector<Values>&)>& loss,
                            const std::vector<Values>& inputs, size_t which, const Values& gradient, Random& random,
                            const char* what) {
  const Values direction = random.values(int64_t(gradient.size()));
  const double step = 1e-5;
  std::vector<Values> ahead = inputs, behind = inputs;
  double scale = 1e-6;
  for (size_t i = 0; i < direction.size(); ++i) {
    ahead[which][i] += step * direction[i];
    behind[which][i] -= step * direction[i];
    scale += fabs(gradient[i] * direction[i]);
  }
  const double slope = (loss(ahead) - loss(behind)) / (2 * step), ours = dot(gradient, direction);
  if (!(fabs(slope - ours) <= 1e-4 * scale)) {
    ++failures;
    fprintf(stderr, "%s: gradient of %s: slope %g, kernel %g\n", where.c_str(), what, slope, ours);
  }
}

// ---- every level and number of threads

// At the level that COBRA_ISA names alone, where it names one.
inline void everywhere(const char* name, const std::function<void(int64_t threads)>& test) {
  const std::string before = cobra_level();
  const char* only = getenv("COBRA_ISA");
  int64_t tested = 0;
  where = name;
  for (int64_t i = 0; cobra_supported_level(i); ++i) {
    if (only && strcmp(only, cobra_supported_level(i)) != 0) continue;
    ++tested;
    CHECK(cobra_set_level(cobra_supported_level(i)) == 0);
    for (int64_t threads = 1; threads <= 2; ++threads) {
      where = std::string(name) + ", " + cobra_level() + ", threads " + std::to_string(threads);
      test(threads);
    }
  }
  CHECK(tested > 0);
  CHECK(cobra_set_level(before.c_str()) == 0);
}

inline int finish(const char* program) {
  printf("%s: %s\n", program, failures ? "FAILED" : "ok");
  return failures ? 1 : 0;
}

// The token of a visit, for shapes with `length`, `reversed` and `grid_height`.
template <typename Shape>
inline int64_t token_at(const Shape& s, int64_t visit) {
  if (s.reversed) visit = s.length - 1 - visit;
  const int64_t row = visit % s.grid_height, column = visit / s.grid_height;
  return row * (s.length / s.grid_height) + column;
}

// A mask (B, L) of some token on the left, on the right, in the middle and here and there; of none in the last row.
inline std::vector<uint8_t> some_masked(int64_t batch, int64_t length) {
  std::vector<uint8_t> mask;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t t = 0; t < length; ++t) {
      const bool middle = t >= length / 3 && t < length / 3 + 9 * b;
      mask.push_back(b + 1 < batch && t >= 2 * b && t < length - 3 * b && !middle && t % 37 != 5);
    }
  return mask;
}

// NaN in each of the `width` values of a token that is masked.
inline void poison(Values& values, const std::vector<uint8_t>& mask, int64_t width) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!mask[i / size_t(width)]) values[i] = NAN;
}

inline double softplus(double x) { return x > 20 ? x : log1p(exp(x)); }
inline double sigmoid(double x) { return 1 / (1 + exp(-x)); }
inline double silu(double x) { return x * sigmoid(x); }
inline double silu_slope(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }

}  // namespace native
