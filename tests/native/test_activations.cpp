// Activations against their definitions in double precision.
#include "native.h"

using namespace native;

void gate(int64_t width, cobra::DType dtype, int64_t threads) {
  Random random(23);
  const Values x = narrowed(random.values(2 * width, -9, 9), dtype), up = narrowed(random.values(2 * width), dtype);
  Values expected;
  for (size_t i = 0; i < x.size(); ++i) expected.push_back(x[i] / (1 + exp(-x[i])) * up[i]);
  Tensor x_t({2, width}, x, 3, dtype), up_t({2, width}, up, 0, dtype);
  Tensor y({2, width}, 2);
  const cobra::Gate call = {x_t.array(), up_t.array(), y.array(), 2, width, threads};
  CHECK(cobra_silu_mul(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "a gate");
}

void gelu(int64_t width, cobra::DType dtype, int64_t threads) {
  Random random(24);
  const Values x = narrowed(random.values(2 * width, -9, 9), dtype);
  Values expected;
  for (double v : x) expected.push_back(v / 2 * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))));
  Tensor x_t({2, width}, x, 3, dtype), y({2, width}, 2);
  const cobra::Activation call = {x_t.array(), y.array(), 2, width, threads};
  CHECK(cobra_gelu_tanh(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "gelu");
}

int main() {
  for (cobra::DType dtype : {cobra::FLOAT32, cobra::BFLOAT16})
    for (int64_t width : {1, 17, 4099}) {
      everywhere("silu_mul", [&](int64_t threads) { gate(width, dtype, threads); });
      everywhere("gelu_tanh", [&](int64_t threads) { gelu(width, dtype, threads); });
    }
  return finish("activations");
}
