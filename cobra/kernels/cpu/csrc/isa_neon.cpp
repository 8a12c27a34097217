#define COBRA_NS neon
#define COBRA_VW 4
#include "level.inc"
