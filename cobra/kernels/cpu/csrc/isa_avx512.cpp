#define COBRA_NS avx512
#define COBRA_VW 16
#include "level.inc"
