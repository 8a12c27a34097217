// One token of decoding against its definition in double precision, and bf16 linears against a plain product.
#include "native.h"

using namespace native;

void state_update(int64_t batch, int64_t heads, int64_t head_dim, int64_t d_state, int64_t threads) {
  Random random(13);
  const Values state = random.values(batch * heads * head_dim * d_state), x = random.values(batch * heads * head_dim);
  const Values dt = random.values(batch * heads), A = random.values(heads, -2, -0.1), D = random.values(heads);
  const Values B = random.values(batch * d_state), C = random.values(batch * d_state);
  Values kept = state, expected(x.size());
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < heads; ++h) {
      const double step = softplus(dt[size_t(b * heads + h)]);
      for (int64_t p = 0; p < head_dim; ++p) {
        const size_t at = size_t((b * heads + h) * head_dim + p);
        expected[at] = D[size_t(h)] * x[at];
        for (int64_t n = 0; n < d_state; ++n) {
          double& cell = kept[at * size_t(d_state) + size_t(n)];
          cell = exp(step * A[size_t(h)]) * cell + step * x[at] * B[size_t(b * d_state + n)];
          expected[at] += cell * C[size_t(b * d_state + n)];
        }
      }
    }
  Tensor state_t({batch, heads, head_dim, d_state}, state), x_t({batch, heads, head_dim}, x, 1), dt_t({batch, heads}, dt);
  Tensor A_t({heads}, A), B_t({batch, 1, d_state}, B), C_t({batch, 1, d_state}, C), D_t({heads}, D);
  Tensor y({batch, heads, head_dim});
  const cobra::StateUpdate call = {state_t.array(), x_t.array(), dt_t.array(), A_t.array(), B_t.array(), C_t.array(),
                                   D_t.array(), absent(), absent(), y.array(), batch, heads, head_dim, d_state, 1, 1, 0,
                                   1, threads, 0.0, std::numeric_limits<double>::infinity()};
  CHECK(cobra_selective_state_update(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "y");
  expect_close(state_t.values(), kept, 1e-5, "state");
}

void linear_bf16(int64_t batch, int64_t rows, int64_t columns, int64_t threads) {
  Random random(17);
  const Values x = random.values(batch * columns);
  std::unique_ptr<uint16_t[]> weight(new uint16_t[size_t(rows * columns)]);
  Values wide(size_t(rows * columns)), expected(size_t(batch * rows));
  for (size_t i = 0; i < wide.size(); ++i) {
    const float value = float(random.uniform(-1, 1));
    uint32_t bits;
    memcpy(&bits, &value, 4);
    weight[i] = uint16_t(bits >> 16);
    bits &= 0xffff0000u;
    float narrow;
    memcpy(&narrow, &bits, 4);
    wide[i] = narrow;
  }
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        expected[size_t(b * rows + r)] += x[size_t(b * columns + c)] * wide[size_t(r * columns + c)];
  Tensor x_t({batch, columns}, x), y({batch, rows});
  const cobra::Array packed = {weight.get(), cobra::BFLOAT16, {columns, 0, 0}};
  const cobra::Linear call = {x_t.array(), packed, absent(), absent(), y.array(), batch, columns, rows, 0, threads};
  CHECK(cobra_linear_bf16(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "linear_bf16");
}

int main() {
  everywhere("state update", [](int64_t threads) {
    state_update(2, 3, 5, 7, threads);
    state_update(1, 4, 64, 128, threads);
    state_update(0, 4, 8, 16, threads);
  });
  everywhere("linear_bf16", [](int64_t threads) {
    for (int64_t batch : {1, 2, 8})
      for (int64_t columns : {1, 15, 64, 131}) linear_bf16(batch, 37, columns, threads);
  });
  return finish("steps");
}
