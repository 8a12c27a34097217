// Vectors of COBRA_VW floats in the compiler's own vector type, and the functions that the kernels share.
//
// A kernel file (.inc) is compiled once per ISA level. Each level is a small .cpp that defines COBRA_NS, its
// namespace, and COBRA_VW, the native number of floats in a vector, and includes the kernels. Everything here
// lives in that namespace: an inline function shared between levels would be emitted once, perhaps with
// AVX512 code that another machine cannot run. For the same reason the kernels use no std:: templates.
#pragma once

#include <stdint.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if !defined(COBRA_NS) || !defined(COBRA_VW)
#error "define COBRA_NS and COBRA_VW before including vec.h"
#endif

#define COBRA_INLINE inline __attribute__((always_inline))

namespace cobra {
namespace COBRA_NS {

constexpr int VW = COBRA_VW;

typedef float Vec __attribute__((vector_size(COBRA_VW * 4)));
typedef int32_t IntVec __attribute__((vector_size(COBRA_VW * 4)));
typedef uint32_t BitVec __attribute__((vector_size(COBRA_VW * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(COBRA_VW * 2)));

// the same, at any address and over memory of any type
typedef float LooseVec __attribute__((vector_size(COBRA_VW * 4), aligned(4), may_alias));
// aligned(2): pairs of bf16 are read through it as well
typedef int32_t LooseIntVec __attribute__((vector_size(COBRA_VW * 4), aligned(2), may_alias));
typedef uint16_t LooseHalfVec __attribute__((vector_size(COBRA_VW * 2), aligned(2), may_alias));

// bfloat16: the upper half of a float. A type of its own, so that load and store can be overloaded.
struct bf16 {
  uint16_t bits;
};

// ---- scalars

template <typename T>
COBRA_INLINE T least(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
COBRA_INLINE T most(T a, T b) {
  return a < b ? b : a;
}

COBRA_INLINE int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

COBRA_INLINE float to_float(float a) { return a; }

COBRA_INLINE float to_float(bf16 a) {
  union {
    uint32_t bits;
    float value;
  } word = {uint32_t(a.bits) << 16};
  return word.value;
}

// ---- loads and stores; the _part forms touch the first n < VW elements, absent lanes read as 0

// a - 0 is a, -0 and NaN included; adding 0 would lose the sign of -0
COBRA_INLINE Vec splat(float a) { return a - Vec{}; }

COBRA_INLINE Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }

COBRA_INLINE IntVec load(const int32_t* p) { return *reinterpret_cast<const LooseIntVec*>(p); }

COBRA_INLINE void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }

COBRA_INLINE Vec load(const bf16* p) {
#if defined(__AVX512F__)
  // GCC 12 splits the conversion of vector types into halves, and warns of the forms without a mask
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return (Vec)_mm512_maskz_slli_epi32(0xffff, wide, 16);
#elif defined(__AVX2__)
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return (Vec)_mm256_slli_epi32(wide, 16);
#else
  return (Vec)(__builtin_convertvector(HalfVec(*reinterpret_cast<const LooseHalfVec*>(p)), BitVec) << 16);
#endif
}

// rounds to nearest, ties to even; a NaN stays one, made quiet so that its payload cannot vanish
COBRA_INLINE void store(bf16* p, Vec v) {
  const BitVec bits = (BitVec)v;
  const BitVec rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const BitVec upper = (v == v ? rounded : bits | 0x400000) >> 16;
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)upper));
#elif defined(__AVX2__)
  const __m256i words = (__m256i)upper;
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
#else
  *reinterpret_cast<LooseHalfVec*>(p) = __builtin_convertvector(upper, HalfVec);
#endif
}

template <typename T>
COBRA_INLINE Vec load_part(const T* p, int64_t n) {
  T lanes[VW] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}

template <typename T>
COBRA_INLINE void store_part(T* p, Vec v, int64_t n) {
  T lanes[VW];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

// rows of `width` elements: f(column, lanes) for each vector, lanes < VW only in the last. Inlined into the loop, f
// knows that vectors are whole, and keeps what it loads in registers.
template <typename F>
COBRA_INLINE void for_vectors(int64_t width, F f) {
  int64_t i = 0;
  for (; i + VW <= width; i += VW) f(i, int64_t(VW));
  if (i < width) f(i, width - i);
}

template <typename T>
COBRA_INLINE Vec load_lanes(const T* p, int64_t lanes) {
  return lanes == VW ? load(p) : load_part(p, lanes);
}

template <typename T>
COBRA_INLINE void store_lanes(T* p, Vec v, int64_t lanes) {
  if (lanes == VW)
    store(p, v);
  else
    store_part(p, v, lanes);
}

// ---- lanes

COBRA_INLINE IntVec lane_numbers() {
  IntVec v;
  for (int i = 0; i < VW; ++i) v[i] = i;
  return v;
}

// the sum of all lanes, pairwise
COBRA_INLINE float sum(Vec v) {
  float lanes[VW];
  store(lanes, v);
  for (int half = VW / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// One step of a transposition: exchanges the lanes of a whose number has the bit S with the lanes of b without.
// A square of VW vectors is transposed by doing so for S = 1, 2, 4 .. with all pairs of rows that S apart.
template <int S, int... Lane>
COBRA_INLINE void exchange_lanes(Vec& a, Vec& b) {
  const Vec low = a, high = b;
  a = __builtin_shufflevector(low, high, (Lane & S ? VW + Lane - S : Lane)...);
  b = __builtin_shufflevector(low, high, (Lane & S ? VW + Lane : Lane + S)...);
}

template <int S>
COBRA_INLINE void exchange(Vec& a, Vec& b) {
#if COBRA_VW == 4
  exchange_lanes<S, 0, 1, 2, 3>(a, b);
#elif COBRA_VW == 8
  exchange_lanes<S, 0, 1, 2, 3, 4, 5, 6, 7>(a, b);
#elif COBRA_VW == 16
  exchange_lanes<S, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(a, b);
#endif
}

template <int S>
COBRA_INLINE void exchange_all(Vec (&rows)[VW]) {
  for (int i = 0; i < VW; ++i)
    if (!(i & S)) exchange<S>(rows[i], rows[i + S]);
}

COBRA_INLINE void transpose(Vec (&rows)[VW]) {
  exchange_all<1>(rows);
  exchange_all<2>(rows);
  if constexpr (VW > 4) exchange_all<4>(rows);
  if constexpr (VW > 8) exchange_all<8>(rows);
}

// Lane i is the sum of rows[i]: a transposition that adds what it brings together, so each step halves the rows.
template <int S = 1>
COBRA_INLINE Vec sum_each(Vec (&rows)[VW]) {
  if constexpr (S == VW) {
    return rows[0];
  } else {
    for (int i = 0; i < VW / S; i += 2) {
      exchange<S>(rows[i], rows[i + 1]);
      rows[i / 2] = rows[i] + rows[i + 1];
    }
    return sum_each<2 * S>(rows);
  }
}

// ---- bounds that keep NaN in x: the instructions return their second operand then

#if defined(__AVX512F__)
COBRA_INLINE Vec at_least(Vec x, Vec low) { return (Vec)_mm512_maskz_max_ps(0xffff, (__m512)low, (__m512)x); }
COBRA_INLINE Vec at_most(Vec x, Vec high) { return (Vec)_mm512_maskz_min_ps(0xffff, (__m512)high, (__m512)x); }
#elif defined(__AVX2__)
COBRA_INLINE Vec at_least(Vec x, Vec low) { return (Vec)_mm256_max_ps((__m256)low, (__m256)x); }
COBRA_INLINE Vec at_most(Vec x, Vec high) { return (Vec)_mm256_min_ps((__m256)high, (__m256)x); }
#else
COBRA_INLINE Vec at_least(Vec x, Vec low) { return x < low ? low : x; }
COBRA_INLINE Vec at_most(Vec x, Vec high) { return x > high ? high : x; }
#endif

// ---- functions

// Adding it rounds to an integer and leaves that, plus the bias of exponents, in the low bits.
constexpr float ROUND = 12582912.0f + 127.0f;

// p 2^n from n + ROUND, n <= 128; 0 where x < lowest, whatever p and n are there
COBRA_INLINE Vec scale_by_power(Vec p, Vec rounded, Vec x, float lowest) {
  return x < lowest ? Vec{} : p * (Vec)((IntVec)rounded << 23);
}

// exp(x) within 2 ulp, 0 below -80: a denormal result would slow every product with it a hundredfold.
// 1. x = n ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts (Cody and Waite)
// 2. exp(r) by the polynomial of Cephes' expf
// 3. times 2^n, infinity from n = 128 on, which is x > 88.37
COBRA_INLINE Vec exp(Vec x) {
  const Vec bounded = at_most(x, splat(89.0f)), rounded = bounded * 1.44269504088896341f + ROUND, n = rounded - ROUND;
  const Vec r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return scale_by_power(p, rounded, x, -80.0f);
}

constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.69314718055994531f;

// 2^x of K vectors within 2 ulp, 0 below -115, which is exp(-80). It takes a third fewer steps than exp.
// 1. x = n + r, |r| <= 1 / 2, exactly
// 2. 2^r by a polynomial of least relative error
// 3. times 2^n, infinity from n = 128 on
// Step by step for all: one vector's steps wait for each other, and fill the scheduler while they do.
template <int K>
COBRA_INLINE void exp2_each(Vec (&x)[K]) {
  static constexpr float POWERS[] = {1.33988750e-3f, 9.61843692e-3f, 5.55033237e-2f, 2.40226477e-1f, 6.93147182e-1f,
                                     1.0f};
  Vec rounded[K], r[K], p[K];
  for (int k = 0; k < K; ++k) r[k] = at_most(x[k], splat(128.0f));
  for (int k = 0; k < K; ++k) rounded[k] = r[k] + ROUND;
  for (int k = 0; k < K; ++k) r[k] = r[k] - (rounded[k] - ROUND);
  for (int k = 0; k < K; ++k) p[k] = splat(1.53533620e-4f);
#pragma GCC unroll 6
  for (float power : POWERS)
    for (int k = 0; k < K; ++k) p[k] = p[k] * r[k] + power;
  for (int k = 0; k < K; ++k) x[k] = scale_by_power(p[k], rounded[k], x[k], -115.0f);
}

// log(1 + e) for 0 <= e <= 1, to 2 ulp also for tiny e: 2 artanh(s), s = e / (2 + e) <= 1/3
COBRA_INLINE Vec log1p_unit(Vec e) {
  const Vec s = e / (e + 2.0f), q = s * s;
  Vec p = q * 0.11619509f + 0.10851662f;
  p = p * q + 0.14296291f;
  p = p * q + 0.19999851f;
  p = p * q + 0.33333334f;
  return 2.0f * (s + s * (q * p));
}

// log(1 + exp(x)) without overflow
COBRA_INLINE Vec softplus(Vec x) {
  const Vec negative = x < Vec{} ? x : -x;
  return (x > Vec{} ? x : Vec{}) + log1p_unit(exp(negative));
}

// of K vectors, in place
template <int K>
COBRA_INLINE void sigmoid_each(Vec (&x)[K]) {
  for (int k = 0; k < K; ++k) x[k] = exp(-x[k]);
  for (int k = 0; k < K; ++k) x[k] = 1.0f / (1.0f + x[k]);
}

template <int K>
COBRA_INLINE void silu_each(Vec (&x)[K]) {
  Vec s[K];
  for (int k = 0; k < K; ++k) s[k] = x[k];
  sigmoid_each(s);
  for (int k = 0; k < K; ++k) x[k] = x[k] * s[k];
}

// d silu(x) / dx
template <int K>
COBRA_INLINE void silu_slope_each(Vec (&x)[K]) {
  Vec s[K];
  for (int k = 0; k < K; ++k) s[k] = x[k];
  sigmoid_each(s);
  for (int k = 0; k < K; ++k) x[k] = s[k] * (1.0f + x[k] * (1.0f - s[k]));
}

COBRA_INLINE Vec sigmoid(Vec x) {
  Vec one[1] = {x};
  sigmoid_each(one);
  return one[0];
}

COBRA_INLINE Vec silu(Vec x) { return x * sigmoid(x); }

COBRA_INLINE Vec silu_slope(Vec x) {
  const Vec s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

}  // namespace COBRA_NS
}  // namespace cobra
