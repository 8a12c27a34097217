// The order in which a scan visits the tokens of a call.
#pragma once

#include <stdint.h>

#include "vec.h"

namespace cobra {
namespace COBRA_NS {

// The token of a visit, 0 .. length: along the sequence, or down the columns of a grid one after the other.
template <typename Args>
COBRA_INLINE int64_t token_at(const Args& a, int64_t visit) {
  if (a.reversed) visit = a.length - 1 - visit;
  // most scans go along the sequence: spare them the divisions
  if (a.grid_height == 1) return visit;
  const int64_t width = a.length / a.grid_height;
  return visit % a.grid_height * width + visit / a.grid_height;
}

}  // namespace COBRA_NS
}  // namespace cobra
