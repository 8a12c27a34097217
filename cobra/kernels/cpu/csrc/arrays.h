// Elements of an Array, whatever floating type they are stored in, as fp32.
#pragma once

#include "abi.h"
#include "vec.h"

namespace cobra {
namespace COBRA_NS {

COBRA_INLINE bool present(const Array& a) { return a.data != nullptr; }

COBRA_INLINE float get(const Array& a, int64_t i) {
  return a.dtype == BFLOAT16 ? to_float(static_cast<const bf16*>(a.data)[i]) : static_cast<const float*>(a.data)[i];
}

COBRA_INLINE Vec get(const Array& a, int64_t i, int64_t lanes) {
  return a.dtype == BFLOAT16 ? load_lanes(static_cast<const bf16*>(a.data) + i, lanes)
                             : load_lanes(static_cast<const float*>(a.data) + i, lanes);
}

COBRA_INLINE void put(const Array& a, int64_t i, Vec v, int64_t lanes) {
  if (a.dtype == BFLOAT16)
    store_lanes(static_cast<bf16*>(a.data) + i, v, lanes);
  else
    store_lanes(static_cast<float*>(a.data) + i, v, lanes);
}

COBRA_INLINE void put(const Array& a, int64_t i, float value) {
  if (a.dtype == BFLOAT16)
    store_part(static_cast<bf16*>(a.data) + i, splat(value), 1);
  else
    static_cast<float*>(a.data)[i] = value;
}

// The array from element i on.
COBRA_INLINE Array shifted(Array a, int64_t i) {
  if (present(a)) a.data = static_cast<char*>(a.data) + i * (a.dtype == BFLOAT16 ? 2 : 4);
  return a;
}

}  // namespace COBRA_NS
}  // namespace cobra
