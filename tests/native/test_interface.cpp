// Levels can be listed and set, and an unknown one is refused; a plan makes its calls in order and stops at a failure.
#include "native.h"

namespace {

int add_one(const void* number) {
  ++*static_cast<int*>(const_cast<void*>(number));
  return 0;
}

int fail(const void*) { return cobra::NO_ROOM; }

void check_plan() {
  int first = 0, second = 0;
  const cobra::Call calls[] = {{add_one, &first}, {add_one, &second}, {fail, nullptr}, {add_one, &second}};
  int64_t failed = -1;
  CHECK(cobra_run_plan(calls, 0, &failed) == 0);
  CHECK(cobra_run_plan(calls, 2, &failed) == 0);
  CHECK(failed == -1);
  CHECK(cobra_run_plan(calls, 4, &failed) == cobra::NO_ROOM);
  CHECK(failed == 2);
  CHECK(first == 2);
  CHECK(second == 2);
}

}  // namespace

int main() {
  using namespace native;
  where = "interface";
  CHECK(cobra_supported_level(0) != nullptr);
  CHECK(cobra_supported_level(99) == nullptr);
  CHECK(cobra_set_level("nonsense") == 1);
  CHECK(strlen(cobra_fingerprint()) > 0);
  check_plan();
  everywhere("interface", [](int64_t) {});
  return finish("interface");
}
