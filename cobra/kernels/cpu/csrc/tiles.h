// Tensors by strides, and products of small matrices held in cache, tile by tile in registers.
#pragma once

#include <stdint.h>

#include "arrays.h"
#include "vec.h"

namespace cobra {
namespace COBRA_NS {

// ---- tensors of the caller

COBRA_INLINE int64_t offset(const Array& a, int64_t i, int64_t j, int64_t k) {
  return a.stride[0] * i + a.stride[1] * j + a.stride[2] * k;
}

COBRA_INLINE float* floats(const Array& a) { return static_cast<float*>(a.data); }

COBRA_INLINE Vec load_lanes(const Array& a, int64_t i, int64_t lanes) {
  return a.dtype == BFLOAT16 ? load_lanes(static_cast<const bf16*>(a.data) + i, lanes)
                             : load_lanes(static_cast<const float*>(a.data) + i, lanes);
}

COBRA_INLINE void store_lanes(const Array& a, int64_t i, Vec v, int64_t lanes) {
  if (a.dtype == BFLOAT16)
    store_lanes(static_cast<bf16*>(a.data) + i, v, lanes);
  else
    store_lanes(static_cast<float*>(a.data) + i, v, lanes);
}

// Brings a row's cache lines nearer, to be written if WRITE. To be inlined into a function that does more: GCC takes
// one that only prefetches for one without effect.
template <int WRITE>
COBRA_INLINE void prefetch(const Array& a, int64_t i, int64_t columns) {
  const int64_t bytes = a.dtype == BFLOAT16 ? 2 : 4;
  const char* row = static_cast<const char*>(a.data) + i * bytes;
  for (int64_t at = 0; at < columns * bytes; at += 64) __builtin_prefetch(row + at, WRITE, 2);
}

// The lanes at column p of a row that is `width` wide: none past its end.
COBRA_INLINE int64_t lanes_at(int64_t p, int64_t width) { return most<int64_t>(0, least<int64_t>(VW, width - p)); }

// ---- rows and transposes between the caller's tensors and padded buffers

// `to` (to_rows, to_columns), dense, gets `from` at (b, tokens[i], k) as row i, for `rows` tokens, and zeros.
inline void pack(const Array& from, int64_t b, const int64_t* tokens, int64_t k, int64_t rows, int64_t columns, float* to,
                 int64_t to_rows, int64_t to_columns) {
  for (int64_t i = 0; i < to_rows; ++i)
    for (int64_t p = 0; p < to_columns; p += VW) {
      const int64_t lanes = i < rows ? lanes_at(p, columns) : 0;
      store(to + i * to_columns + p, lanes ? load_lanes(from, offset(from, b, tokens[i], k) + p, lanes) : Vec{});
    }
}

// The reverse: rows of `from`, dense, `stride` apart, to `to` at (b, tokens[i], k).
inline void unpack(const float* from, int64_t stride, const Array& to, int64_t b, const int64_t* tokens, int64_t k,
                   int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; ++i)
    for_vectors(columns, [&](int64_t p, int64_t lanes) {
      store_lanes(to, offset(to, b, tokens[i], k) + p, load(from + i * stride + p), lanes);
    });
}

// A matrix inside an Array: element (i, j) at `at` + i stride + j.
struct Matrix {
  Array array;
  int64_t at, stride, rows, columns;
};

// The same of a padded buffer.
inline Matrix matrix(const float* data, int64_t stride, int64_t rows, int64_t columns) {
  return {{const_cast<float*>(data), FLOAT32, {}}, 0, stride, rows, columns};
}

// `to` gets the transpose of `from`, and zeros beyond it.
inline void transpose(const Matrix& from, const Matrix& to) {
  for (int64_t i = 0; i < to.columns; i += VW)
    for (int64_t j = 0; j < to.rows; j += VW) {
      const int64_t lanes = lanes_at(j, from.columns);
      Vec block[VW];
      for (int r = 0; r < VW; ++r)
        block[r] = i + r < from.rows ? load_lanes(from.array, from.at + (i + r) * from.stride + j, lanes) : Vec{};
      transpose(block);
      for (int r = 0; r < VW && j + r < to.rows; ++r)
        store_lanes(to.array, to.at + (j + r) * to.stride + i, block[r], lanes_at(i, to.columns));
    }
}

COBRA_INLINE void fill_zeros(float* p, int64_t floats) {
  for (int64_t i = 0; i < floats; ++i) p[i] = 0.0f;
}

// m (rows, columns), dense, columns padded
inline void scale_rows(float* m, int64_t rows, int64_t columns, const float* factors) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t p = 0; p < columns; p += VW) store(m + i * columns + p, load(m + i * columns + p) * factors[i]);
}

// ---- products

// A tile of R rows and V vectors fills the registers: 16 sums of 32 with AVX512, 12 of 16 with AVX2; elsewhere 8, as
// SSE2 needs registers for products besides.
constexpr int R = 4;
constexpr int V = VW == 16 ? 4 : VW == 8 ? 3 : 2;

template <int W>
struct Width {
  static constexpr int value = W;
};

// sums[i][j] += sum over k < depth of a[i, k] b[k, j], vectors j; a by both strides, rows of b contiguous
template <int W>
COBRA_INLINE void multiply(Vec (&sums)[R][W], const float* a, int64_t a_row, int64_t a_column, const float* b,
                           int64_t b_row, int64_t depth) {
  for (int64_t k = 0; k < depth; ++k) {
    Vec row[W];
#pragma GCC unroll 8
    for (int j = 0; j < W; ++j) row[j] = load(b + k * b_row + j * VW);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Vec factor = splat(a[i * a_row + k * a_column]);
#pragma GCC unroll 8
      for (int j = 0; j < W; ++j) sums[i][j] += factor * row[j];
    }
  }
}

template <int W, typename F>
COBRA_INLINE int64_t strips(int64_t rows, int64_t column, int64_t columns, F f) {
  for (; column + W * VW <= columns; column += W * VW)
    for (int64_t i = 0; i < rows; i += R) f(Width<W>{}, i, column);
  return column;
}

// f(Width, row, column) for all tiles of a matrix; rows and columns are padded to R and VW.
// A strip of columns is done row by row, so that its part of the right factor stays in cache.
template <typename F>
COBRA_INLINE void for_tiles(int64_t rows, int64_t columns, F f) {
  int64_t column = strips<V>(rows, 0, columns, f);
  if constexpr (V > 2) column = strips<2>(rows, column, columns, f);
  strips<1>(rows, column, columns, f);
}

// f(row, column, sum) for the elements of a finished tile, a vector at a time
template <int W, typename F>
COBRA_INLINE void for_elements(Vec (&sums)[R][W], int64_t row, int64_t column, F f) {
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < W; ++j) f(row + i, column + j * VW, sums[i][j]);
  }
}

}  // namespace COBRA_NS
}  // namespace cobra
