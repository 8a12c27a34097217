#define COBRA_NS neon_dot
#define COBRA_VW 4
#include "level.inc"
