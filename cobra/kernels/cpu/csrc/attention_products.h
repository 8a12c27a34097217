// Products of queries with keys and of weights with values, where those lie, in bf16 or fp32.
//
// Rows are read in vectors of 32-bit words. One word is an fp32 channel or two of bf16, which a shift and a mask make
// fp32: a conversion would take a step across lanes besides. So a row in fp32 that meets one of bf16 has its channels
// in another order: the even ones of each vector of words, then its odd ones.
#pragma once

#include <string.h>

#include "vec.h"

namespace cobra {
namespace COBRA_NS {

// fp32 vectors in a vector of words, its channels, and the width of a row in whole vectors of them
template <typename T>
constexpr int HALVES = sizeof(float) / sizeof(T);
template <typename T>
constexpr int CHANNELS = VW * HALVES<T>;
template <typename T>
COBRA_INLINE int64_t word_width(int64_t width) {
  return round_up(width, CHANNELS<T>);
}

// Where channel c lies in a row that meets rows of T.
template <typename T>
COBRA_INLINE int64_t place(int64_t c) {
  return c / CHANNELS<T> * CHANNELS<T> + c % HALVES<T> * VW + c % CHANNELS<T> / HALVES<T>;
}

template <typename T>
COBRA_INLINE Vec load_words(const T* p) {
  // aligned as a T is, which may be less than a float
  return (Vec)(IntVec)*reinterpret_cast<const LooseIntVec*>(p);
}

// the first n channels, n < CHANNELS; others are 0
template <typename T>
COBRA_INLINE Vec load_words(const T* p, int64_t n) {
#if defined(__AVX512F__)
  if (n % HALVES<T> == 0) return (Vec)_mm512_maskz_loadu_ps(__mmask16((1u << n / HALVES<T>) - 1), p);
#endif
  T part[CHANNELS<T>] = {};
  memcpy(part, p, size_t(n) * sizeof(T));
  return load_words(part);
}

template <typename T>
COBRA_INLINE Vec half(Vec words, int i) {
  if constexpr (HALVES<T> == 1) return words;
  return i ? (Vec)((BitVec)words & 0xffff0000u) : (Vec)((BitVec)words << 16);
}

// Tokens that follow each other: n <= VW rows, or VW if WHOLE. Row i is the last one for i >= n: nothing behind is read.
template <typename T, bool WHOLE>
struct Tokens {
  const T* first;
  int64_t stride, n;

  COBRA_INLINE const T* row(int64_t i) const { return first + (WHOLE ? i : least(i, n - 1)) * stride; }
};

// What lies this many bytes ahead is asked for, since the processor does so too late where rows change.
constexpr int64_t PREFETCH_TOKENS = 4096;

COBRA_INLINE void prefetch_ahead(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + PREFETCH_TOKENS); }

// f(channel, load) for every vector of words of a row; load(p) reads it from there.
template <typename T, typename F>
COBRA_INLINE void for_words(int64_t width, F f) {
  int64_t c = 0;
  for (; c + CHANNELS<T> <= width; c += CHANNELS<T>) f(c, [](const T* p) { return load_words(p); });
  if (c < width) f(c, [=](const T* p) { return load_words(p, width - c); });
}

// The products of q (fp32, as `place` says) with VW tokens: lane i is that of row i.
template <typename T, bool WHOLE>
COBRA_INLINE Vec multiply_tokens(const Tokens<T, WHOLE>& keys, int64_t width, const float* q) {
  Vec sums[VW];
#pragma GCC unroll 16
  for (int i = 0; i < VW; ++i) {
    const T* row = keys.row(i);
    Vec products[HALVES<T>] = {};
    for_words<T>(width, [&](int64_t c, auto load_row) __attribute__((always_inline)) {
      prefetch_ahead(row + c);
      const Vec words = load_row(row + c);
      for (int k = 0; k < HALVES<T>; ++k) products[k] += half<T>(words, k) * load(q + c + k * VW);
    });
    sums[i] = HALVES<T> == 1 ? products[0] : products[0] + products[HALVES<T> - 1];
  }
  return sum_each(sums);
}

// VW tokens as fp32, channels (as `place` says) times tokens: what many queries are multiplied with.
template <typename T, bool WHOLE>
COBRA_INLINE void transpose_tokens(const Tokens<T, WHOLE>& keys, int64_t width, float* to) {
  for_words<T>(width, [&](int64_t c, auto load_row) __attribute__((always_inline)) {
    Vec rows[VW];
    for (int i = 0; i < VW; ++i) {
      const T* from = keys.row(i) + c;
      prefetch_ahead(from);
      rows[i] = load_row(from);
    }
    transpose(rows);
    for (int i = 0; i < VW; ++i)
      for (int k = 0; k < HALVES<T>; ++k) store(to + (c + k * VW + i) * VW, half<T>(rows[i], k));
  });
}

// K queries (channels times K) with VW tokens that `transpose_tokens` turned, to K vectors `stride` apart.
template <int K>
COBRA_INLINE void multiply_queries(const float* tokens, int64_t width, const float* q, float* scores, int64_t stride) {
  Vec sums[K] = {};
  for (int64_t c = 0; c < width; ++c) {
    const Vec channel = load(tokens + c * VW);
#pragma GCC unroll 8
    for (int h = 0; h < K; ++h) sums[h] += channel * q[c * K + h];
  }
  for (int h = 0; h < K; ++h) store(scores + h * stride, sums[h]);
}

// K sums y of n rows, weighted, of BLOCKS vectors of words each: the last has `tail` channels, if that is not 0.
template <int K, int BLOCKS, typename T>
COBRA_INLINE void add_block(const T* values, int64_t stride, int64_t n, int64_t tail, const float* weights,
                            int64_t weight_stride, float* y, int64_t y_stride) {
  constexpr int N = BLOCKS * HALVES<T>;
  Vec sums[K][N];
  for (int h = 0; h < K; ++h)
    for (int k = 0; k < N; ++k) sums[h][k] = load(y + h * y_stride + k * VW);
  for (int64_t i = 0; i < n; ++i) {
    Vec row[N];
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b) {
      const T* from = values + i * stride + b * CHANNELS<T>;
      prefetch_ahead(from);
      const Vec words = tail && b == BLOCKS - 1 ? load_words(from, tail) : load_words(from);
      for (int k = 0; k < HALVES<T>; ++k) row[b * HALVES<T> + k] = half<T>(words, k);
    }
#pragma GCC unroll 8
    for (int h = 0; h < K; ++h) {
      const Vec weight = splat(weights[h * weight_stride + i]);
#pragma GCC unroll 8
      for (int k = 0; k < N; ++k) sums[h][k] += weight * row[k];
    }
  }
  for (int h = 0; h < K; ++h)
    for (int k = 0; k < N; ++k) store(y + h * y_stride + k * VW, sums[h][k]);
}

// The same for rows of any width, BLOCKS vectors of words at a time and as many as are left in the end.
template <int K, int BLOCKS, typename T>
COBRA_INLINE void add_weighted(const T* values, int64_t stride, int64_t n, int64_t width, const float* weights,
                               int64_t weight_stride, float* y, int64_t y_stride) {
  constexpr int64_t STEP = BLOCKS * CHANNELS<T>;
  for (; width >= STEP; width -= STEP, values += STEP, y += STEP)
    add_block<K, BLOCKS>(values, stride, n, 0, weights, weight_stride, y, y_stride);
  if (width > STEP - CHANNELS<T>)
    add_block<K, BLOCKS>(values, stride, n, width % CHANNELS<T>, weights, weight_stride, y, y_stride);
  else if constexpr (BLOCKS > 1)
    if (width) add_weighted<K, BLOCKS - 1>(values, stride, n, width, weights, weight_stride, y, y_stride);
}

}  // namespace COBRA_NS
}  // namespace cobra
