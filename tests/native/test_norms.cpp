// The norms and their gradients against their definitions in double precision.
#include "native.h"

using namespace native;

constexpr double EPS = 1e-5;
constexpr int64_t BLOCK = 4;  // rows that share a sum of the weight's gradient

double inverse_rms(const Values& v, size_t begin, size_t size) {
  double squares = 0;
  for (size_t i = begin; i < begin + size; ++i) squares += v[i] * v[i];
  return 1 / sqrt(squares / double(size) + EPS);
}

// Adds the gradient of v in v / rms(v), of which `gradient` is known.
void add_norm_gradient(const Values& v, const Values& gradient, size_t begin, size_t size, Values& dv) {
  const double r = inverse_rms(v, begin, size);
  double mean = 0;
  for (size_t i = begin; i < begin + size; ++i) mean += v[i] * gradient[i] / double(size);
  for (size_t i = begin; i < begin + size; ++i) dv[i] += r * gradient[i] - v[i] * r * r * r * mean;
}

// Sums of rows, BLOCK at a time.
Values block_sums(const Values& rows, int64_t width) {
  const int64_t count = int64_t(rows.size()) / width;
  Values sums(size_t((count + BLOCK - 1) / BLOCK * width));
  for (int64_t i = 0; i < count * width; ++i) sums[size_t(i / width / BLOCK * width + i % width)] += rows[size_t(i)];
  return sums;
}

// A single value is normed to its sign, whose gradient is the difference of two larger numbers.
double slack(int64_t width, double rounding) { return width == 1 ? fmax(1e-3, rounding) : rounding; }

void norm(int64_t rows, int64_t width, int64_t gap, cobra::DType dtype, int64_t threads) {
  Random random(5);
  const int64_t size = rows * width;
  const Values x = narrowed(random.values(size), dtype), weight = random.values(width);
  const Values residual = random.values(size), dy = narrowed(random.values(size), dtype), more = random.values(size);
  Values total(x.size()), expected(x.size()), scaled(x.size()), normed(x.size()), dtotal = more;
  for (size_t i = 0; i < x.size(); ++i) total[i] = x[i] + residual[i];
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % size_t(width);
    normed[i] = total[i] * inverse_rms(total, i - c, size_t(width));
    expected[i] = normed[i] * weight[c];
    scaled[i] = dy[i] * weight[c];
    normed[i] *= dy[i];
  }
  for (size_t begin = 0; begin < x.size(); begin += size_t(width))
    add_norm_gradient(total, scaled, begin, size_t(width), dtotal);

  const double rounding = dtype == cobra::BFLOAT16 ? 4e-3 : 1e-6;
  const std::vector<int64_t> dims{rows, width};
  Tensor x_t(dims, x, gap, dtype), r_t(dims, residual, gap), w_t({width}, weight), y(dims, gap, dtype), sum(dims);
  const cobra::Norm call = {x_t.array(), r_t.array(), w_t.array(), y.array(), sum.array(), absent(), absent(),
                            rows, width, BLOCK, threads, EPS};
  CHECK(cobra_rms_norm(&call) == 0);
  expect_close(y.values(), expected, rounding, "norm");
  expect_close(sum.values(), total, 1e-6, "residual");

  Tensor dy_t(dims, dy, gap, dtype), more_t(dims, more), dx(dims, gap), dw({(rows + BLOCK - 1) / BLOCK, width});
  const cobra::Norm backward = {sum.array(), absent(), w_t.array(), dy_t.array(), more_t.array(), dx.array(), dw.array(),
                                rows, width, BLOCK, threads, EPS};
  CHECK(cobra_rms_norm_backward(&backward) == 0);
  expect_close(dx.values(), dtotal, slack(width, 1e-5), "dx");
  expect_close(dw.values(), block_sums(normed, width), 1e-5, "dweight");
}

void layer_norm(int64_t rows, int64_t width, bool first, cobra::DType dtype, int64_t threads) {
  Random random(7);
  const int64_t size = rows * width;
  const Values x = narrowed(random.values(size, 1, 3), dtype), parallel = narrowed(random.values(size), dtype);
  const Values residual = random.values(size), weight = random.values(width), bias = random.values(width);
  Values total(x.size()), expected(x.size());
  for (size_t i = 0; i < x.size(); ++i) total[i] = x[i] + (first ? 0 : parallel[i] + residual[i]);
  for (size_t begin = 0; begin < x.size(); begin += size_t(width)) {
    double mean = 0;
    for (size_t c = 0; c < size_t(width); ++c) mean += total[begin + c] / double(width);
    Values centred;
    for (size_t c = 0; c < size_t(width); ++c) centred.push_back(total[begin + c] - mean);
    const double scale = inverse_rms(centred, 0, size_t(width));
    for (size_t c = 0; c < size_t(width); ++c) expected[begin + c] = centred[c] * scale * weight[c] + bias[c];
  }

  const std::vector<int64_t> dims{rows, width};
  Tensor x_t(dims, x, 1, dtype), p_t(dims, parallel, 2, dtype), r_t(dims, residual, 3), w_t({width}, weight);
  Tensor b_t({width}, bias), y(dims, 1, dtype), sum(dims);
  const cobra::LayerNorm call = {x_t.array(), first ? absent() : p_t.array(), first ? absent() : r_t.array(),
                                 w_t.array(), b_t.array(), y.array(), sum.array(), rows, width, threads, EPS};
  CHECK(cobra_add_layer_norm(&call) == 0);
  expect_close(y.values(), expected, dtype == cobra::BFLOAT16 ? 4e-3 : 1e-5, "layer norm");
  expect_close(sum.values(), total, 1e-6, "residual");
}

void gated_norm(int64_t rows, int64_t group, cobra::DType dtype, int64_t threads) {
  const int64_t width = 3 * group, size = rows * width;
  Random random(6);
  const Values x = narrowed(random.values(size), dtype), z = narrowed(random.values(size, -3, 3), dtype);
  const Values weight = random.values(width), dy = narrowed(random.values(size), dtype);
  Values v(x.size()), expected(x.size()), scaled(x.size()), normed(x.size()), dv(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    v[i] = x[i] * silu(z[i]);
    scaled[i] = dy[i] * weight[i % size_t(width)];
  }
  for (size_t begin = 0; begin < x.size(); begin += size_t(group)) {
    add_norm_gradient(v, scaled, begin, size_t(group), dv);
    for (size_t i = begin; i < begin + size_t(group); ++i) normed[i] = v[i] * inverse_rms(v, begin, size_t(group));
  }
  Values dx(x.size()), dz(x.size()), dweights(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    expected[i] = normed[i] * weight[i % size_t(width)];
    dx[i] = dv[i] * silu(z[i]);
    dz[i] = dv[i] * x[i] * silu_slope(z[i]);
    dweights[i] = dy[i] * normed[i];
  }

  const double rounding = dtype == cobra::BFLOAT16 ? 4e-3 : 2e-6;
  const std::vector<int64_t> dims{rows, width};
  Tensor x_t(dims, x, 1, dtype), z_t(dims, z, 2, dtype), w_t({width}, weight), y(dims, 0, dtype);
  const cobra::GatedNorm call = {x_t.array(), z_t.array(), w_t.array(), y.array(), absent(), absent(), absent(),
                                 rows, width, group, BLOCK, threads, EPS};
  CHECK(cobra_rms_norm_gated(&call) == 0);
  expect_close(y.values(), expected, rounding, "gated norm");

  Tensor dy_t(dims, dy, 1, dtype), dx_t(dims, 0, dtype), dz_t(dims, 0, dtype), dw({(rows + BLOCK - 1) / BLOCK, width});
  const cobra::GatedNorm backward = {x_t.array(), z_t.array(), w_t.array(), dy_t.array(), dx_t.array(), dz_t.array(),
                                     dw.array(), rows, width, group, BLOCK, threads, EPS};
  CHECK(cobra_rms_norm_gated_backward(&backward) == 0);
  expect_close(dx_t.values(), dx, slack(group, 2 * rounding), "dx");
  expect_close(dz_t.values(), dz, slack(group, 2 * rounding), "dz");
  expect_close(dw.values(), block_sums(dweights, width), 1e-5, "dweight");
}

int main() {
  for (cobra::DType dtype : {cobra::FLOAT32, cobra::BFLOAT16})
    for (int64_t rows : {0, 1, 9})
      for (int64_t width : {1, 7, 64, 131}) {
        everywhere("rms_norm", [&](int64_t threads) { norm(rows, width, width % 3, dtype, threads); });
        for (bool first : {false, true})
          everywhere("add_layer_norm", [&](int64_t threads) { layer_norm(rows, width, first, dtype, threads); });
        everywhere("rms_norm_gated", [&](int64_t threads) { gated_norm(rows, width, dtype, threads); });
      }
  return finish("norms");
}
