#define COBRA_NS avx2
#define COBRA_VW 8
#include "level.inc"
