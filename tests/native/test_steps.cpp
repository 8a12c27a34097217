// One token of decoding against its definition in double precision: state updates and whole mixers.
#include "native.h"

using namespace native;

constexpr int64_t BATCH = 2, TAPS = 4;

// state = decay state + fed B; the new state times C
double advance(double* state, const double* B, const double* C, int64_t d_state, double fed,
               const std::function<double(int64_t)>& decay) {
  double y = 0;
  for (int64_t n = 0; n < d_state; ++n) {
    state[n] = decay(n) * state[n] + fed * B[n];
    y += state[n] * C[n];
  }
  return y;
}

struct Sizes {
  int64_t heads, head_dim, d_state, groups;
  bool mamba2, options;  // options: gate, bias and softplus
  cobra::DType dtype;    // of x and the gate; of the state too
};

void state_update(const Sizes& s, int64_t threads) {
  Random random(13);
  const int64_t inner = s.heads * s.head_dim;
  const auto input = [&](int64_t count, double low = -1, double high = 1) {
    return narrowed(random.values(count, low, high), s.dtype);
  };
  const Values before = input(BATCH * inner * s.d_state), x = input(BATCH * inner), z = input(BATCH * inner, -3, 3);
  const Values dt = input(BATCH * s.heads), bias = random.values(s.heads);
  const Values A = random.values(s.mamba2 ? s.heads : inner * s.d_state, -2, -0.1);
  const Values D = random.values(s.heads);
  const Values B = input(BATCH * s.groups * s.d_state), C = input(BATCH * s.groups * s.d_state);
  Values state = before, expected(x.size());
  for (int64_t b = 0; b < BATCH; ++b)
    for (int64_t i = 0; i < inner; ++i) {
      const int64_t h = i / s.head_dim, at = b * inner + i;
      const int64_t group = (b * s.groups + h / (s.heads / s.groups)) * s.d_state;
      const double raw = dt[size_t(b * s.heads + h)] + (s.options ? bias[size_t(h)] : 0);
      const double step = s.options ? softplus(raw) : raw;
      const double y = advance(&state[size_t(at * s.d_state)], &B[size_t(group)], &C[size_t(group)], s.d_state,
                               step * x[size_t(at)],
                               [&](int64_t n) { return exp(step * A[size_t(s.mamba2 ? h : i * s.d_state + n)]); });
      expected[size_t(at)] = (y + D[size_t(h)] * x[size_t(at)]) * (s.options ? silu(z[size_t(at)]) : 1);
    }

  std::vector<int64_t> row{BATCH, s.heads}, rates{s.heads};
  if (s.mamba2) row.push_back(s.head_dim);
  if (!s.mamba2) rates.push_back(s.d_state);
  std::vector<int64_t> cells = row, maps{BATCH, s.groups, s.d_state};
  cells.push_back(s.d_state);
  Tensor state_t(cells, before, 0, s.dtype), x_t(row, x, 1, s.dtype), dt_t({BATCH, s.heads}, dt), A_t(rates, A);
  Tensor B_t(maps, B, 0, s.dtype), C_t(maps, C, 2, s.dtype), D_t({s.heads}, D), z_t(row, z, 0, s.dtype), bias_t({s.heads}, bias);
  Tensor y(row, 0, s.dtype);
  const cobra::StateUpdate call = {state_t.array(), x_t.array(), dt_t.array(), A_t.array(), B_t.array(), C_t.array(),
                                   D_t.array(), s.options ? z_t.array() : absent(),
                                   s.options ? bias_t.array() : absent(), y.array(), BATCH, s.heads, s.head_dim,
                                   s.d_state, s.groups, s.mamba2, s.options, threads};
  CHECK(cobra_selective_state_update(&call) == 0);
  const double rounding = s.dtype == cobra::BFLOAT16 ? 4e-3 : 2e-6;
  expect_close(y.values(), expected, rounding, "y");
  expect_close(state_t.values(), state, rounding, "state");
}

// The convolution of one row of a batch; its state takes x.
Values convolved(const double* x, int64_t channels, const Values& weight, const Values& bias, double* state) {
  Values y(static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    double* kept = state + c * (TAPS - 1);
    double sum = bias[size_t(c)] + weight[size_t(c * TAPS + TAPS - 1)] * x[c];
    for (int64_t k = 0; k < TAPS - 1; ++k) sum += weight[size_t(c * TAPS + k)] * kept[k];
    for (int64_t k = 0; k < TAPS - 2; ++k) kept[k] = kept[k + 1];
    kept[TAPS - 2] = x[c];
    y[size_t(c)] = silu(sum);
  }
  return y;
}

void mamba_step(int64_t inner, int64_t d_state, int64_t rank, cobra::DType dtype, int64_t threads) {
  Random random(19);
  const Values xz = narrowed(random.values(BATCH * 2 * inner), dtype);
  Values conv = narrowed(random.values(BATCH * inner * (TAPS - 1)), dtype), ssm = random.values(BATCH * inner * d_state);
  Tensor xz_t({BATCH, 2 * inner}, xz, 3, dtype), conv_t({BATCH, inner, TAPS - 1}, conv, 0, dtype);
  Tensor ssm_t({BATCH, inner, d_state}, ssm);
  const Values weight = random.values(inner * TAPS), bias = random.values(inner);
  const Values x_proj = narrowed(random.values((rank + 2 * d_state) * inner, -0.2, 0.2), dtype);
  const Values dt_proj = narrowed(random.values(inner * rank), dtype), dt_bias = random.values(inner, -3, 0);
  const Values A_log = random.values(inner * d_state), D = random.values(inner);
  Values expected;
  for (int64_t b = 0; b < BATCH; ++b) {
    const Values x = convolved(&xz[size_t(b * 2 * inner)], inner, weight, bias, &conv[size_t(b * inner * (TAPS - 1))]);
    Values projected(size_t(rank + 2 * d_state));
    for (size_t i = 0; i < projected.size(); ++i)
      for (size_t c = 0; c < size_t(inner); ++c) projected[i] += x_proj[i * size_t(inner) + c] * x[c];
    for (int64_t c = 0; c < inner; ++c) {
      double dt = dt_bias[size_t(c)];
      for (int64_t r = 0; r < rank; ++r) dt += dt_proj[size_t(c * rank + r)] * projected[size_t(r)];
      dt = softplus(dt);
      const double y = advance(&ssm[size_t((b * inner + c) * d_state)], &projected[size_t(rank)],
                               &projected[size_t(rank + d_state)], d_state, dt * x[size_t(c)],
                               [&](int64_t n) { return exp(-dt * exp(A_log[size_t(c * d_state + n)])); });
      expected.push_back((y + D[size_t(c)] * x[size_t(c)]) * silu(xz[size_t(b * 2 * inner + inner + c)]));
    }
  }
  Tensor weight_t({inner, TAPS}, weight), bias_t({inner}, bias), dt_bias_t({inner}, dt_bias), D_t({inner}, D);
  Tensor x_proj_t({rank + 2 * d_state, inner}, x_proj, 0, dtype), dt_proj_t({inner, rank}, dt_proj, 0, dtype);
  Tensor A_log_t({inner, d_state}, A_log), y({BATCH, inner}, 0, dtype);
  const cobra::MambaStep call = {xz_t.array(), conv_t.array(), ssm_t.array(), weight_t.array(), bias_t.array(),
                                 x_proj_t.array(), dt_proj_t.array(), dt_bias_t.array(), A_log_t.array(), D_t.array(),
                                 y.array(), BATCH, inner, d_state, rank, TAPS, threads};
  CHECK(cobra_mamba_step(&call) == 0);
  expect_close(y.values(), expected, dtype == cobra::BFLOAT16 ? 4e-3 : 1e-5, "y");
  expect_close(ssm_t.values(), ssm, 1e-5, "ssm_state");
  expect_close(conv_t.values(), conv, 0, "conv_state");
}

void mamba2_step(const Sizes& s, int64_t threads) {
  Random random(23);
  const int64_t inner = s.heads * s.head_dim, states = s.groups * s.d_state, channels = inner + 2 * states;
  const int64_t width = inner + channels + s.heads;
  const Values all = narrowed(random.values(BATCH * width), s.dtype), dt_bias = random.values(s.heads);
  Values conv = narrowed(random.values(BATCH * channels * (TAPS - 1)), s.dtype), ssm = random.values(BATCH * inner * s.d_state);
  Tensor all_t({BATCH, width}, all, 3, s.dtype), conv_t({BATCH, channels, TAPS - 1}, conv, 0, s.dtype);
  Tensor ssm_t({BATCH, s.heads, s.head_dim, s.d_state}, ssm);
  const Values weight = random.values(channels * TAPS), bias = random.values(channels), A_log = random.values(s.heads);
  const Values D = random.values(s.heads), norm_weight = random.values(inner);
  Values expected;
  for (int64_t b = 0; b < BATCH; ++b) {
    const double *z = &all[size_t(b * width)], *dts = z + inner + channels;
    const Values xbc = convolved(z + inner, channels, weight, bias, &conv[size_t(b * channels * (TAPS - 1))]);
    Values gated(static_cast<size_t>(inner));
    for (int64_t i = 0; i < inner; ++i) {
      const int64_t h = i / s.head_dim, group = inner + h / (s.heads / s.groups) * s.d_state;
      const double dt = softplus(dts[h] + dt_bias[size_t(h)]), x = xbc[size_t(i)];
      const double y = advance(&ssm[size_t((b * inner + i) * s.d_state)], &xbc[size_t(group)],
                               &xbc[size_t(group + states)], s.d_state, dt * x,
                               [&](int64_t) { return exp(-dt * exp(A_log[size_t(h)])); });
      gated[size_t(i)] = (y + D[size_t(h)] * x) * silu(z[i]);
    }
    const int64_t group = inner / s.groups;
    for (int64_t i = 0; i < inner; ++i) {
      double squares = 0;
      for (int64_t j = i / group * group; j < (i / group + 1) * group; ++j) squares += gated[size_t(j)] * gated[size_t(j)];
      expected.push_back(gated[size_t(i)] / sqrt(squares / double(group) + 1e-5) * norm_weight[size_t(i)]);
    }
  }
  Tensor weight_t({channels, TAPS}, weight), bias_t({channels}, bias), dt_bias_t({s.heads}, dt_bias);
  Tensor A_log_t({s.heads}, A_log), D_t({s.heads}, D), norm_t({inner}, norm_weight), y({BATCH, inner}, 0, s.dtype);
  const cobra::Mamba2Step call = {all_t.array(), conv_t.array(), ssm_t.array(), weight_t.array(), bias_t.array(),
                                  dt_bias_t.array(), A_log_t.array(), D_t.array(), norm_t.array(), y.array(), BATCH,
                                  s.heads, s.head_dim, s.d_state, s.groups, TAPS, threads, 1e-5};
  CHECK(cobra_mamba2_step(&call) == 0);
  expect_close(y.values(), expected, s.dtype == cobra::BFLOAT16 ? 4e-3 : 1e-5, "y");
  expect_close(ssm_t.values(), ssm, 1e-5, "ssm_state");
  expect_close(conv_t.values(), conv, 0, "conv_state");
}

int main() {
  for (cobra::DType dtype : {cobra::FLOAT32, cobra::BFLOAT16}) {
    for (bool options : {false, true}) {
      everywhere("mamba2 update", [&](int64_t threads) {
        state_update({4, 5, 7, 2, true, options, dtype}, threads);
        state_update({2, 64, 128, 1, true, options, dtype}, threads);
      });
      everywhere("mamba update", [&](int64_t threads) {
        state_update({134, 1, 5, 2, false, options, dtype}, threads);
        state_update({32, 1, 16, 1, false, options, dtype}, threads);
      });
    }
    everywhere("mamba2_step", [&](int64_t threads) {
      mamba2_step({4, 5, 21, 2, true, true, dtype}, threads);
      mamba2_step({2, 16, 32, 1, true, true, dtype}, threads);
    });
    everywhere("mamba_step", [&](int64_t threads) {
      mamba_step(134, 5, 9, dtype, threads);
      mamba_step(32, 16, 2, dtype, threads);
    });
  }
  return finish("steps");
}
