// The table of kernels that every ISA level fills in.
#pragma once
#include "abi.h"
#include "scan_abi.h"

#define COBRA_KERNELS(X) COBRA_LAYER_KERNELS(X) COBRA_SCAN_KERNELS(X)

namespace cobra {

struct Kernels {
#define COBRA_FIELD(name, Arguments) int (*name)(const Arguments&);
  COBRA_KERNELS(COBRA_FIELD)
#undef COBRA_FIELD
};

#define COBRA_LEVEL(level)       \
  namespace level {              \
  extern const Kernels KERNELS;  \
  }
COBRA_LEVEL(base)
COBRA_LEVEL(avx2)
COBRA_LEVEL(avx512)
COBRA_LEVEL(neon)
COBRA_LEVEL(neon_dot)
#undef COBRA_LEVEL

}  // namespace cobra
