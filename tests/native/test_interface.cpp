// Levels can be listed and set, and an unknown one is refused.
#include "native.h"

int main() {
  using namespace native;
  where = "interface";
  CHECK(cobra_supported_level(0) != nullptr);
  CHECK(cobra_supported_level(99) == nullptr);
  CHECK(cobra_set_level("nonsense") == 1);
  CHECK(strlen(cobra_fingerprint()) > 0);
  everywhere("interface", [](int64_t) {});
  return finish("interface");
}
