// Rows of an Array as fp32, filled up with zeros to whole vectors. A row that is stored so already is used where it
// lies; others go through a buffer. So dtypes and tails are dealt with here, and loops run over whole vectors.
#pragma once

#include <string.h>

#include "arrays.h"
#include "threads.h"

namespace cobra {
namespace COBRA_NS {

// Width of a row in a buffer.
COBRA_INLINE int64_t padded(int64_t width) { return round_up(width, VW); }

// Where element i lies, if a row of `width` from there on needs no buffer; else null.
COBRA_INLINE float* in_place(const Array& a, int64_t i, int64_t width) {
  return a.dtype == FLOAT32 && present(a) && width % VW == 0 ? static_cast<float*>(a.data) + i : nullptr;
}

template <typename T>
inline void widen(const T* from, int64_t width, float* to) {
  int64_t c = 0;
  for (; c + VW <= width; c += VW) store(to + c, load(from + c));
  if (c < width) store(to + c, load_part(from + c, width - c));
}

template <typename T>
inline void narrow(const float* from, int64_t width, T* to) {
  int64_t c = 0;
  for (; c + VW <= width; c += VW) store(to + c, load(from + c));
  if (c < width) store_part(to + c, load(from + c), width - c);
}

// Copies a row from element i on to a buffer.
inline void copy_row(const Array& a, int64_t i, int64_t width, float* buffer) {
  if (a.dtype == BFLOAT16)
    widen(static_cast<const bf16*>(a.data) + i, width, buffer);
  else
    widen(static_cast<const float*>(a.data) + i, width, buffer);
}

// A row to read.
COBRA_INLINE const float* read_row(const Array& a, int64_t i, int64_t width, float* buffer) {
  if (const float* row = in_place(a, i, width)) return row;
  copy_row(a, i, width, buffer);
  return buffer;
}

// Room for a row that close_row then brings to its array.
COBRA_INLINE float* open_row(const Array& a, int64_t i, int64_t width, float* buffer) {
  float* row = in_place(a, i, width);
  return row ? row : buffer;
}

inline void write_row(const Array& a, int64_t i, int64_t width, const float* row) {
  if (a.dtype == BFLOAT16)
    narrow(row, width, static_cast<bf16*>(a.data) + i);
  else
    narrow(row, width, static_cast<float*>(a.data) + i);
}

COBRA_INLINE void close_row(const Array& a, int64_t i, int64_t width, const float* row) {
  if (!in_place(a, i, width)) write_row(a, i, width, row);
}

// Buffers for rows of a worker.
class RowBuffers {
 public:
  RowBuffers(int64_t rows, int64_t width, int64_t workers) : width_(padded(width)), memory_(rows * width_, workers) {}
  bool ok() const { return memory_.ok(); }
  float* row(int worker, int64_t i) const { return memory_.share(worker) + i * width_; }

 private:
  int64_t width_;
  Scratch memory_;
};

}  // namespace COBRA_NS
}  // namespace cobra
