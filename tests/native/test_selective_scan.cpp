// Mamba-1's scan against the sequential recurrence in double precision: values, final state, gradients.
#include "native.h"

using namespace native;

struct Shape {
  int64_t batch, length, channels, groups, d_state, gap;
  int64_t reversed = 0, grid_height = 1;
  // a mask, under which everything is NaN
  bool masked = false;
};

enum Input { U, DELTA, A, B, C, D, Z, BIAS, INITIAL, INPUTS };
const char* const NAMES[] = {"u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"};

std::vector<Values> random_inputs(const Shape& s, Random& random) {
  const int64_t tokens = s.batch * s.length;
  std::vector<Values> in(INPUTS);
  for (Input i : {U, DELTA, Z}) in[i] = random.values(tokens * s.channels);
  for (Input i : {B, C}) in[i] = random.values(tokens * s.groups * s.d_state);
  for (Input i : {D, BIAS}) in[i] = random.values(s.channels);
  in[A] = random.values(s.channels * s.d_state, -2, -0.1);
  if (s.masked) {
    const std::vector<uint8_t> mask = some_masked(s.batch, s.length);
    for (Input i : {U, DELTA, B, C, Z}) poison(in[i], mask, int64_t(in[i].size()) / tokens);
  }
  in[INITIAL] = random.values(s.batch * s.channels * s.d_state);
  return in;
}

struct Outputs {
  Values y, final_state;
};

// h_t = exp(dt A) h_{t-1} + dt B u,  y = (C h + D u) silu(z)
Outputs recurrence(const Shape& s, const std::vector<Values>& in) {
  Outputs out{Values(in[U].size()), in[INITIAL]};
  const std::vector<uint8_t> mask = some_masked(s.batch, s.length);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t visit = 0; visit < s.length; ++visit)
      for (int64_t d = 0; d < s.channels; ++d) {
        const int64_t token = b * s.length + token_at(s, visit);
        if (s.masked && !mask[size_t(token)]) continue;
        const int64_t group = d / (s.channels / s.groups);
        const size_t at = size_t(token * s.channels + d);
        const double dt = softplus(in[DELTA][at] + in[BIAS][size_t(d)]);
        double* state = out.final_state.data() + (b * s.channels + d) * s.d_state;
        double y = in[D][size_t(d)] * in[U][at];
        for (int64_t n = 0; n < s.d_state; ++n) {
          const size_t map = size_t((token * s.groups + group) * s.d_state + n);
          state[n] = exp(dt * in[A][size_t(d * s.d_state + n)]) * state[n] + dt * in[B][map] * in[U][at];
          y += state[n] * in[C][map];
        }
        out.y[at] = y * silu(in[Z][at]);
      }
  return out;
}

void test(const Shape& s, int64_t threads) {
  Random random(11);
  const std::vector<Values> values = random_inputs(s, random);
  const Outputs expected = recurrence(s, values);
  const std::vector<int64_t> wide{s.batch, s.length, s.channels}, maps{s.batch, s.length, s.groups, s.d_state},
      decays{s.channels, s.d_state}, channels{s.channels}, state{s.batch, s.channels, s.d_state};
  const std::vector<int64_t>* dims[] = {&wide, &wide, &decays, &maps, &maps, &channels, &wide, &channels, &state};
  std::vector<Tensor> in;
  for (int i = 0; i < INPUTS; ++i) in.emplace_back(*dims[i], values[size_t(i)], dims[i]->size() > 1 ? s.gap : 0);
  std::vector<uint8_t> seen = some_masked(s.batch, s.length);
  const cobra::Array mask = s.masked ? array_of(seen, cobra::BOOL, s.length) : absent();
  const auto a = [&](Input i) { return in[i].array(); };

  Tensor y(wide), final_state(state);
  Tensor states({s.batch, (s.length + cobra::SCAN_CHUNK - 1) / cobra::SCAN_CHUNK, s.d_state, s.channels});
  const cobra::ScanForward forward = {a(U), a(DELTA), a(A), a(B), a(C), a(D), a(Z), a(BIAS), a(INITIAL), absent(), mask,
                                      y.array(), final_state.array(), states.array(),
                                      s.batch, s.length, s.channels, s.groups, s.d_state, 1, s.reversed, s.grid_height, threads};
  CHECK(cobra_selective_scan(&forward) == 0);
  expect_close(y.values(), expected.y, 1e-4, "y");
  expect_close(final_state.values(), expected.final_state, 1e-4, "final state");

  const Values dy = random.values(int64_t(expected.y.size()));
  const Values dfinal = random.values(int64_t(expected.final_state.size()));
  Tensor dy_tensor(wide, dy), dfinal_tensor(state, dfinal);
  Tensor du(wide), ddelta(wide), dA(decays), dB(maps), dC(maps), dD(channels), dz(wide), dbias(channels), dinitial(state);
  const cobra::ScanBackward backward = {dy_tensor.array(), dfinal_tensor.array(), a(U), a(DELTA), a(A), a(B), a(C), a(D),
                                        a(Z), a(BIAS), absent(), mask, states.array(),
                                        du.array(), ddelta.array(), dB.array(), dC.array(), dz.array(),
                                        dA.array(), dD.array(), dbias.array(), dinitial.array(),
                                        s.batch, s.length, s.channels, s.groups, s.d_state, 1, s.reversed, s.grid_height, threads};
  CHECK(cobra_selective_scan_backward(&backward) == 0);
  const auto loss = [&](const std::vector<Values>& changed) {
    const Outputs out = recurrence(s, changed);
    return dot(out.y, dy) + dot(out.final_state, dfinal);
  };
  Tensor* gradients[] = {&du, &ddelta, &dA, &dB, &dC, &dD, &dz, &dbias, &dinitial};
  for (size_t i = 0; i < INPUTS; ++i) expect_gradient(loss, values, i, gradients[i]->values(), random, NAMES[i]);
}

int main() {
  const Shape shapes[] = {
      {1, 0, 8, 1, 16, 0}, {1, 1, 1, 1, 1, 0}, {2, 31, 5, 1, 7, 3}, {1, 32, 16, 2, 16, 0}, {2, 65, 68, 4, 9, 1},
      {2, 84, 5, 1, 7, 3, 1, 6}, {3, 84, 5, 1, 7, 3, 1, 6, true}, {3, 70, 36, 2, 9, 0, 0, 1, true},
  };
  for (const Shape& shape : shapes) {
    const std::string name = "selective L " + std::to_string(shape.length) + " D " + std::to_string(shape.channels);
    everywhere(name.c_str(), [&](int64_t threads) { test(shape, threads); });
  }
  return finish("selective scan");
}
