// The causal convolution, its gradients and its one-token form against their definitions in double precision.
#include "native.h"

using namespace native;

struct Shape {
  int64_t length, channels, taps, gap;
  cobra::DType dtype;
  bool silu, packed;  // packed: several sequences in a row, some tokens masked
  int64_t reversed, grid_height;
};

constexpr int64_t BATCH = 3;

// The definition, visit by visit, and its adjoint. Masked tokens are not visited.
struct Convolution {
  const Shape& s;
  Values x, weight, bias, initial, dy, dfinal;
  std::vector<int64_t> sequences;
  std::vector<uint8_t> mask;
  std::vector<int64_t> visits[BATCH];
  Values y, final_state, dx, dweight, dbias, dinitial;

  explicit Convolution(const Shape& shape) : s(shape) {
    Random random(3);
    const int64_t tokens = BATCH * s.length, state = BATCH * s.channels * (s.taps - 1);
    x = narrowed(random.values(tokens * s.channels), s.dtype);
    dy = narrowed(random.values(tokens * s.channels), s.dtype);
    weight = random.values(s.channels * s.taps);
    bias = random.values(s.channels);
    initial = narrowed(random.values(state), s.dtype);
    dfinal = narrowed(random.values(state), s.dtype);
    sequences.resize(size_t(tokens));
    mask = s.packed ? some_masked(BATCH, s.length) : std::vector<uint8_t>(size_t(tokens), 1);
    poison(x, mask, s.channels);
    poison(dy, mask, s.channels);
    for (int64_t b = 0; b < BATCH; ++b)
      for (int64_t visit = 0; visit < s.length; ++visit) {
        const int64_t token = b * s.length + token_at(s, visit);
        sequences[size_t(token)] = mask[size_t(token)] ? visit / (11 + 20 * b) : 99;
        if (mask[size_t(token)]) visits[b].push_back(token);
      }
  }

  int64_t length(int64_t b) const { return int64_t(visits[b].size()); }
  bool same(int64_t b, int64_t u, int64_t v) const {
    if (!s.packed || visits[b].empty()) return true;
    const auto at = [&](int64_t visit) { return sequences[size_t(visits[b][size_t(visit < 0 ? 0 : visit)])]; };
    return at(u) == at(v);
  }
  size_t token(int64_t b, int64_t visit, int64_t c) const {
    return size_t(visits[b][size_t(visit)] * s.channels + c);
  }
  size_t state(int64_t b, int64_t visit, int64_t c) const {
    return size_t((b * s.channels + c) * (s.taps - 1) + visit + s.taps - 1);
  }
  double input(int64_t b, int64_t visit, int64_t c) const {
    return visit < 0 ? initial[state(b, visit, c)] : x[token(b, visit, c)];
  }
  void add(int64_t b, int64_t visit, int64_t c, double gradient) {
    if (visit < 0)
      dinitial[state(b, visit, c)] += gradient;
    else
      dx[token(b, visit, c)] += gradient;
  }

  void run() {
    y = dx = Values(x.size());
    final_state = dinitial = Values(initial.size());
    dweight.assign(size_t(BATCH * s.taps * s.channels), 0);
    dbias.assign(size_t(BATCH * s.channels), 0);
    for (int64_t b = 0; b < BATCH; ++b)
      for (int64_t c = 0; c < s.channels; ++c) {
        const int64_t end = length(b);
        for (int64_t visit = 0; visit < end; ++visit) convolve(b, visit, c);
        for (int64_t visit = end - s.taps + 1; visit < end; ++visit) {
          if (!same(b, visit, end - 1)) continue;
          const size_t kept = state(b, visit - end, c);
          final_state[kept] = input(b, visit, c);
          add(b, visit, c, dfinal[kept]);
        }
      }
  }

  void convolve(int64_t b, int64_t visit, int64_t c) {
    double sum = bias[size_t(c)];
    const auto tap = [&](int64_t k) { return visit - s.taps + 1 + k; };
    const auto filter = [&](int64_t k) { return weight[size_t(c * s.taps + k)]; };
    for (int64_t k = 0; k < s.taps; ++k)
      if (same(b, tap(k), visit)) sum += filter(k) * input(b, tap(k), c);
    y[token(b, visit, c)] = s.silu ? silu(sum) : sum;
    const double gradient = dy[token(b, visit, c)] * (s.silu ? silu_slope(sum) : 1);
    dbias[size_t(b * s.channels + c)] += gradient;
    for (int64_t k = 0; k < s.taps; ++k) {
      if (!same(b, tap(k), visit)) continue;
      dweight[size_t((b * s.taps + k) * s.channels + c)] += gradient * input(b, tap(k), c);
      add(b, tap(k), c, gradient * filter(k));
    }
  }
};

void convolution(const Shape& s, int64_t threads) {
  Convolution truth(s);
  truth.run();
  const std::vector<int64_t> wide{BATCH, s.length, s.channels}, state{BATCH, s.channels, s.taps - 1};
  Tensor x(wide, truth.x, s.gap, s.dtype), weight({s.channels, s.taps}, truth.weight), bias({s.channels}, truth.bias);
  Tensor initial(state, truth.initial, 0, s.dtype), y(wide, s.gap, s.dtype), final_state(state, 0, s.dtype);
  const cobra::Array seq_idx = s.packed ? array_of(truth.sequences, cobra::INT64, s.length) : absent();
  const cobra::Array mask = s.packed ? array_of(truth.mask, cobra::BOOL, s.length) : absent();
  cobra::Conv1d call = {x.array(), weight.array(), bias.array(), initial.array(), seq_idx, mask, y.array(),
                        final_state.array(), absent(), absent(), absent(), absent(),
                        BATCH, s.length, s.channels, s.taps, s.silu, s.reversed, s.grid_height, threads};
  CHECK(cobra_causal_conv1d(&call) == 0);
  const double rounding = s.dtype == cobra::BFLOAT16 ? 4e-3 : 1e-6;
  expect_close(y.values(), truth.y, rounding, "y");
  expect_close(final_state.values(), truth.final_state, 0, "final state");

  Tensor dy(wide, truth.dy, s.gap, s.dtype), dfinal(state, truth.dfinal, 0, s.dtype);
  Tensor dx(wide, 0, s.dtype), dweight({BATCH, s.taps, s.channels}), dbias({BATCH, s.channels});
  Tensor dinitial(state, 0, s.dtype);
  call.y = dy.array();
  call.final_state = dfinal.array();
  call.dx = dx.array();
  call.dweight = dweight.array();
  call.dbias = dbias.array();
  call.dinitial_state = dinitial.array();
  CHECK(cobra_causal_conv1d_backward(&call) == 0);
  expect_close(dx.values(), truth.dx, rounding, "dx");
  expect_close(dinitial.values(), truth.dinitial, rounding, "dinitial_state");
  expect_close(dweight.values(), truth.dweight, 1e-5, "dweight");
  expect_close(dbias.values(), truth.dbias, 1e-5, "dbias");
}

// A sequence token by token, through the state.
void update(int64_t channels, int64_t taps, cobra::DType dtype, int64_t threads) {
  const Shape s = {5, channels, taps, 0, dtype, true, false, 0, 1};
  Convolution truth(s);
  truth.run();
  const std::vector<int64_t> row{BATCH, channels};
  Tensor weight({channels, taps}, truth.weight), bias({channels}, truth.bias);
  Tensor state({BATCH, channels, taps - 1}, truth.initial, 0, dtype);
  for (int64_t t = 0; t < s.length; ++t) {
    Values token, expected;
    for (int64_t b = 0; b < BATCH; ++b)
      for (int64_t c = 0; c < channels; ++c) {
        token.push_back(truth.x[truth.token(b, t, c)]);
        expected.push_back(truth.y[truth.token(b, t, c)]);
      }
    Tensor x(row, token, 3, dtype), y(row, 0, dtype);
    const cobra::Conv1dUpdate call = {x.array(), state.array(), weight.array(), bias.array(), y.array(),
                                      BATCH, channels, taps, 1, threads};
    CHECK(cobra_causal_conv1d_update(&call) == 0);
    expect_close(y.values(), expected, dtype == cobra::BFLOAT16 ? 4e-3 : 1e-6, "y of one token");
  }
  expect_close(state.values(), truth.final_state, 0, "state");
}

int main() {
  for (cobra::DType dtype : {cobra::FLOAT32, cobra::BFLOAT16})
    for (int64_t taps : {2, 3, 4}) {
      for (int64_t length : {0, 1, 2, 63, 257})
        everywhere("conv1d", [&](int64_t threads) {
          convolution({length, 131, taps, length % 3, dtype, taps > 2, false, 0, 1}, threads);
        });
      for (int64_t reversed : {0, 1}) {
        everywhere("packed conv1d", [&](int64_t threads) {
          convolution({70, 37, taps, 1, dtype, true, true, reversed, 1}, threads);
        });
        everywhere("conv1d of columns", [&](int64_t threads) {
          convolution({70, 16, taps, 0, dtype, true, true, reversed, 7}, threads);
        });
      }
      everywhere("conv1d update", [&](int64_t threads) { update(131, taps, dtype, threads); });
    }
  return finish("conv1d");
}
