#define COBRA_NS base
#define COBRA_VW 4
#include "level.inc"
