// Mamba-2's scan against the sequential recurrence in double precision: values, final state, gradients.
#include "native.h"

using namespace native;

struct Shape {
  int64_t batch, length, heads, head_dim, groups, d_state, gap;
  int64_t reversed = 0, grid_height = 1;
  // no state given, and no gradient of the final one
  bool bare = false;
  // a mask, under which everything is NaN
  bool masked = false;
};

enum Input { X, DT, A, B, C, D, DT_BIAS, INITIAL, INPUTS };
const char* const NAMES[] = {"x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state"};

std::vector<Values> random_inputs(const Shape& s, Random& random) {
  const int64_t tokens = s.batch * s.length;
  std::vector<Values> in(INPUTS);
  in[X] = random.values(tokens * s.heads * s.head_dim);
  in[DT] = random.values(tokens * s.heads);
  in[A] = random.values(s.heads, -2, -0.1);
  in[B] = random.values(tokens * s.groups * s.d_state);
  in[C] = random.values(tokens * s.groups * s.d_state);
  in[D] = random.values(s.heads);
  in[DT_BIAS] = random.values(s.heads);
  if (s.masked) {
    const std::vector<uint8_t> mask = some_masked(s.batch, s.length);
    for (Input i : {X, DT, B, C}) poison(in[i], mask, int64_t(in[i].size()) / tokens);
  }
  const int64_t states = s.batch * s.heads * s.head_dim * s.d_state;
  in[INITIAL] = s.bare ? Values(size_t(states), 0) : random.values(states);
  return in;
}

struct Outputs {
  Values y, final_state;
};

// S_t = exp(dt A) S_{t-1} + dt x B^T,  y = S C + D x
Outputs recurrence(const Shape& s, const std::vector<Values>& in) {
  Outputs out{Values(in[X].size()), in[INITIAL]};
  const std::vector<uint8_t> mask = some_masked(s.batch, s.length);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t visit = 0; visit < s.length; ++visit)
      for (int64_t h = 0; h < s.heads; ++h) {
        const int64_t token = b * s.length + token_at(s, visit);
        if (s.masked && !mask[size_t(token)]) continue;
        const int64_t group = h / (s.heads / s.groups);
        const double dt = softplus(in[DT][size_t(token * s.heads + h)] + in[DT_BIAS][size_t(h)]);
        const double* maps = in[B].data() + (token * s.groups + group) * s.d_state;
        const double* reads = in[C].data() + (token * s.groups + group) * s.d_state;
        for (int64_t p = 0; p < s.head_dim; ++p) {
          const size_t at = size_t((token * s.heads + h) * s.head_dim + p);
          double* state = out.final_state.data() + ((b * s.heads + h) * s.head_dim + p) * s.d_state;
          double y = in[D][size_t(h)] * in[X][at];
          for (int64_t n = 0; n < s.d_state; ++n) {
            state[n] = exp(dt * in[A][size_t(h)]) * state[n] + dt * in[X][at] * maps[n];
            y += state[n] * reads[n];
          }
          out.y[at] = y;
        }
      }
  return out;
}

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

struct Tensors {
  std::vector<int64_t> wide, narrow, maps, heads, state;
  std::vector<Tensor> in;

  Tensors(const Shape& s, const std::vector<Values>& values)
      : wide{s.batch, s.length, s.heads, s.head_dim},
        narrow{s.batch, s.length, s.heads},
        maps{s.batch, s.length, s.groups, s.d_state},
        heads{s.heads},
        state{s.batch, s.heads, s.head_dim, s.d_state} {
    const std::vector<int64_t>* dims[] = {&wide, &narrow, &heads, &maps, &maps, &heads, &heads, &state};
    for (int i = 0; i < INPUTS; ++i) in.emplace_back(*dims[i], values[size_t(i)], dims[i]->size() > 1 ? s.gap : 0);
  }
};

void test(const Shape& s, int64_t threads) {
  Random random(7);
  const std::vector<Values> values = random_inputs(s, random);
  const Outputs expected = recurrence(s, values);
  Tensors t(s, values);
  Tensor y(t.wide), final_state(t.state);
  const int64_t chunk = s.length > cobra::SSD_WHOLE ? cobra::SSD_CHUNK : cobra::SSD_WHOLE, chunks = (s.length + chunk - 1) / chunk;
  Tensor states({s.batch, s.heads, chunks, round_up(s.d_state, cobra::STATE_PAD) * round_up(s.head_dim, cobra::STATE_PAD)});
  std::vector<uint8_t> seen = some_masked(s.batch, s.length);
  const cobra::Array mask = s.masked ? array_of(seen, cobra::BOOL, s.length) : absent();
  const auto a = [&](Input i) { return s.bare && i == INITIAL ? absent() : t.in[i].array(); };
  const cobra::SsdForward forward = {
      a(X), a(DT), a(A), a(B), a(C), a(D), a(DT_BIAS), a(INITIAL), absent(), absent(), mask,
      y.array(), final_state.array(), states.array(),
      s.batch, s.length, s.heads, s.head_dim, s.groups, s.d_state, 1, s.reversed, s.grid_height, threads};
  CHECK(cobra_ssd_chunk_scan(&forward) == 0);
  expect_close(y.values(), expected.y, 1e-4, "y");
  expect_close(final_state.values(), expected.final_state, 1e-4, "final state");

  Tensor y_alone(t.wide);
  cobra::SsdForward alone = forward;
  alone.y = y_alone.array();
  alone.final_state = alone.chunk_states = absent();
  CHECK(cobra_ssd_chunk_scan(&alone) == 0);
  expect_close(y_alone.values(), expected.y, 1e-4, "y alone");

  Tensor y_unkept(t.wide), final_unkept(t.state);
  cobra::SsdForward unkept = forward;
  unkept.y = y_unkept.array();
  unkept.final_state = final_unkept.array();
  unkept.chunk_states = absent();
  CHECK(cobra_ssd_chunk_scan(&unkept) == 0);
  expect_close(y_unkept.values(), expected.y, 1e-4, "y without kept states");
  expect_close(final_unkept.values(), expected.final_state, 1e-4, "final state without kept states");

  if (!s.bare) {
    // all sequences behind the last state: by its number, and as an array without a stride
    std::vector<int64_t> rows(size_t(s.batch), s.batch - 1);
    Tensor y_numbered(t.wide), y_expanded(t.wide);
    cobra::SsdForward numbered = alone, expanded = alone;
    numbered.y = y_numbered.array();
    numbered.initial_rows = array_of(rows, cobra::INT64, 0);
    expanded.y = y_expanded.array();
    cobra::Array& last = expanded.initial_state;
    last.data = static_cast<float*>(last.data) + (s.batch - 1) * last.stride[0];
    last.stride[0] = 0;
    CHECK(cobra_ssd_chunk_scan(&numbered) == 0);
    CHECK(cobra_ssd_chunk_scan(&expanded) == 0);
    expect_close(y_numbered.values(), y_expanded.values(), 0, "y behind a row");
  }

  const Values dy = random.values(int64_t(expected.y.size()));
  const size_t states_size = expected.final_state.size();
  const Values dfinal = s.bare ? Values(states_size, 0) : random.values(int64_t(states_size));
  Tensor dy_tensor(t.wide, dy), dfinal_tensor(t.state, dfinal);
  Tensor dx(t.wide), ddt(t.narrow), dB(t.maps), dC(t.maps), dA(t.heads), dD(t.heads), dbias(t.heads);
  Tensor dinitial(t.state);
  const cobra::SsdBackward backward = {
      dy_tensor.array(), s.bare ? absent() : dfinal_tensor.array(), a(X), a(DT), a(A), a(B), a(C), a(D), a(DT_BIAS),
      absent(), mask, states.array(),
      dx.array(), ddt.array(), dB.array(), dC.array(), dA.array(), dD.array(), dbias.array(),
      s.bare ? absent() : dinitial.array(),
      s.batch, s.length, s.heads, s.head_dim, s.groups, s.d_state, 1, s.reversed, s.grid_height, threads};
  CHECK(cobra_ssd_chunk_scan_backward(&backward) == 0);
  const auto loss = [&](const std::vector<Values>& in) {
    const Outputs out = recurrence(s, in);
    return dot(out.y, dy) + dot(out.final_state, dfinal);
  };
  Tensor* gradients[] = {&dx, &ddt, &dA, &dB, &dC, &dD, &dbias, &dinitial};
  for (size_t i = 0; i < INPUTS; ++i)
    if (!s.bare || i != INITIAL) expect_gradient(loss, values, i, gradients[i]->values(), random, NAMES[i]);
}

int main() {
  const Shape shapes[] = {
      {1, 0, 2, 8, 1, 16, 0}, {1, 1, 1, 1, 1, 1, 0},   {2, 63, 2, 5, 1, 7, 3},
      {1, 64, 4, 16, 2, 16, 0}, {1, 65, 4, 17, 4, 33, 1}, {1, 130, 2, 64, 1, 128, 5}, {2, 84, 2, 5, 1, 7, 3, 1, 6},
      // heads that share a part, in parts of one and two and in a single one
      {1, 130, 12, 3, 1, 5, 2}, {3, 70, 6, 3, 3, 5, 0},
      {1, 130, 12, 3, 1, 5, 2, 0, 1, true}, {3, 64, 6, 3, 3, 5, 0, 0, 1, true},
      // a whole sequence that fills its only chunk
      {1, 129, 2, 5, 1, 7, 0},     {1, 160, 2, 17, 1, 33, 1},
      {1, 128, 4, 17, 2, 33, 1}, {1, 128, 12, 3, 1, 5, 2, 0, 1, true},
      // with a mask: in one chunk and in several, in one part and in more
      {3, 84, 2, 5, 1, 7, 3, 1, 6, false, true}, {3, 150, 12, 3, 1, 5, 2, 0, 1, false, true},
      {3, 150, 12, 3, 3, 5, 2, 0, 1, true, true},
  };
  for (const Shape& shape : shapes) {
    const std::string name = "ssd L " + std::to_string(shape.length) + " P " + std::to_string(shape.head_dim);
    everywhere(name.c_str(), [&](int64_t threads) { test(shape, threads); });
  }
  return finish("ssd");
}
