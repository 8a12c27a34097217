// The causal convolution and the norms against their definitions in double precision.
#include "native.h"

using namespace native;

void convolution(int64_t length, int64_t channels, int64_t taps, int64_t gap, int64_t threads) {
  const int64_t batch = 2;
  Random random(3);
  const Values x = random.values(batch * length * channels), weight = random.values(channels * taps);
  const Values bias = random.values(channels), initial = random.values(batch * channels * (taps - 1));
  // what token t of a row puts in; before the first token that is the initial state
  const auto input = [&](int64_t b, int64_t t, int64_t c) {
    return t >= 0 ? x[size_t((b * length + t) * channels + c)]
                  : initial[size_t((b * channels + c) * (taps - 1) + t + taps - 1)];
  };
  Values expected(x.size()), kept(initial.size());
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < length; ++t) {
        double sum = bias[size_t(c)];
        for (int64_t k = 0; k < taps; ++k) sum += weight[size_t(c * taps + k)] * input(b, t - taps + 1 + k, c);
        expected[size_t((b * length + t) * channels + c)] = silu(sum);
      }
      for (int64_t k = 0; k < taps - 1; ++k)
        kept[size_t((b * channels + c) * (taps - 1) + k)] = input(b, length - taps + 1 + k, c);
    }
  const std::vector<int64_t> wide{batch, length, channels}, state{batch, channels, taps - 1};
  Tensor x_t(wide, x, gap), w_t({channels, taps}, weight, gap), b_t({channels}, bias), i_t(state, initial);
  Tensor y(wide), final_state(state);
  const cobra::Conv1d call = {x_t.array(), w_t.array(), b_t.array(), i_t.array(), absent(), absent(), y.array(),
                              final_state.array(), absent(), absent(), absent(), absent(),
                              batch, length, channels, taps, 1, 0, 1, threads};
  CHECK(cobra_causal_conv1d(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "convolution");
  expect_close(final_state.values(), kept, 1e-7, "last inputs");

  const Values zeros(initial.size());
  Tensor dy(wide, Values(x.size(), 1.0)), dfinal(state, zeros);
  Tensor dx(wide), dweight({batch, taps, channels}), dbias({batch, channels}), dinitial(state);
  const cobra::Conv1d backward = {x_t.array(), w_t.array(), b_t.array(), i_t.array(), absent(), absent(), dy.array(),
                                  dfinal.array(), dx.array(), dweight.array(), dbias.array(), dinitial.array(),
                                  batch, length, channels, taps, 1, 0, 1, threads};
  CHECK(cobra_causal_conv1d_backward(&backward) == 0);
  for (double gradient : dx.values()) CHECK(isfinite(gradient));
  for (double gradient : dweight.values()) CHECK(isfinite(gradient));
}

void norm(int64_t rows, int64_t width, int64_t gap, int64_t threads) {
  Random random(5);
  const Values x = random.values(rows * width), residual = random.values(rows * width), weight = random.values(width);
  Values total(x.size()), expected(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < width; ++c) {
      const size_t at = size_t(r * width + c);
      total[at] = x[at] + residual[at];
      squares += total[at] * total[at];
    }
    for (int64_t c = 0; c < width; ++c) {
      const size_t at = size_t(r * width + c);
      expected[at] = total[at] / sqrt(squares / double(width) + 1e-5) * weight[size_t(c)];
    }
  }
  const std::vector<int64_t> dims{rows, width};
  Tensor x_t(dims, x, gap), r_t(dims, residual, gap), w_t({width}, weight), y(dims), sum(dims);
  const cobra::Norm call = {x_t.array(), r_t.array(), w_t.array(), y.array(), sum.array(), absent(), absent(),
                            rows, width, 32, threads, 1e-5};
  CHECK(cobra_rms_norm(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "norm");
  expect_close(sum.values(), total, 1e-6, "residual");
}

void gated_norm(int64_t rows, int64_t group, int64_t groups, int64_t gap, int64_t threads) {
  const int64_t width = group * groups;
  Random random(6);
  const Values x = random.values(rows * width), z = random.values(rows * width), weight = random.values(width);
  Values expected(x.size());
  for (int64_t start = 0; start < rows * width; start += group) {
    double squares = 0;
    for (int64_t i = start; i < start + group; ++i) squares += pow(x[size_t(i)] * silu(z[size_t(i)]), 2);
    for (int64_t i = start; i < start + group; ++i)
      expected[size_t(i)] = x[size_t(i)] * silu(z[size_t(i)]) / sqrt(squares / double(group) + 1e-5) *
                            weight[size_t(i % width)];
  }
  const std::vector<int64_t> dims{rows, width};
  Tensor x_t(dims, x, gap), z_t(dims, z, gap), w_t({width}, weight), y(dims);
  const cobra::GatedNorm call = {x_t.array(), z_t.array(), w_t.array(), y.array(), absent(), absent(), absent(),
                                 rows, width, group, 0, 32, threads, 1e-5};
  CHECK(cobra_rms_norm_gated(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "gated norm");
}

int main() {
  for (int64_t length : {0, 1, 2, 63, 257})
    for (int64_t taps : {2, 3, 4})
      everywhere("conv1d", [&](int64_t threads) { convolution(length, 131, taps, length % 3, threads); });
  for (int64_t rows : {0, 1, 33})
    for (int64_t width : {1, 7, 64, 131}) {
      everywhere("rms_norm", [&](int64_t threads) { norm(rows, width, width % 3, threads); });
      everywhere("rms_norm_gated", [&](int64_t threads) { gated_norm(rows, width, 3, width % 2, threads); });
    }
  return finish("layers");
}
