// Linears of few rows against a product in double precision; integer weights are packed as quantize.py packs them.
#include "native.h"

using namespace native;

struct Shape {
  int64_t batch, rows, columns, group;
  cobra::DType dtype;
};

// y[b, r] = bias[r] + sum of x[b, c] w(r, c)
Values product(const Shape& s, const Values& x, const Values& bias, const std::function<double(int64_t, int64_t)>& w) {
  Values y;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t r = 0; r < s.rows; ++r) {
      double sum = bias[size_t(r)];
      for (int64_t c = 0; c < s.columns; ++c) sum += x[size_t(b * s.columns + c)] * w(r, c);
      y.push_back(sum);
    }
  return y;
}

// Where word `column` of `row` lies: blocks of 16 rows, the rest a block of their own, words of a block side by side.
size_t interleaved(int64_t row, int64_t column, int64_t rows, int64_t columns) {
  const int64_t block = row / 16 * 16, height = block + 16 <= rows ? 16 : rows - block;
  return size_t(block * columns + column * height + row - block);
}

// Integers in `bits` bits: in the lower half of a word the even columns, in the upper one the odd.
std::vector<int32_t> packed(const std::vector<int>& integers, int64_t rows, int64_t columns, int bits) {
  const int64_t per_word = 32 / bits, words = (columns + per_word - 1) / per_word;
  std::vector<uint32_t> all(size_t(rows * words));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      const uint32_t field = uint32_t(integers[size_t(r * columns + c)]) & ((1u << bits) - 1);
      const int64_t place = c % per_word, shift = 16 * (place % 2) + bits * (place / 2);
      all[interleaved(r, c / per_word, rows, words)] |= field << shift;
    }
  return std::vector<int32_t>(all.begin(), all.end());
}

void run(const Shape& s, const Values& x, const Values& bias, cobra::Array weight, cobra::Array scales,
         int (*linear)(const void*), const Values& expected, double tolerance, int64_t threads) {
  Tensor x_t({s.batch, s.columns}, x, 3, s.dtype), bias_t({s.rows}, bias), y({s.batch, s.rows}, 1, s.dtype);
  const cobra::Linear call = {x_t.array(), weight, scales, bias_t.array(), y.array(),
                              s.batch, s.columns, s.rows, s.group, threads};
  CHECK(linear(&call) == 0);
  expect_close(y.values(), expected, s.dtype == cobra::BFLOAT16 ? 4e-3 : tolerance, "y");
}

// All rows as embeddings, the last first; others are refused.
void expect_rows(const Shape& s, cobra::Array weight, cobra::Array scales, int64_t words, int64_t group,
                 int (*embedding)(const void*), int64_t threads, const std::function<double(int64_t, int64_t)>& w) {
  std::vector<int64_t> ids;
  Values expected;
  for (int64_t r = s.rows - 1; r >= 0; --r) {
    ids.push_back(r);
    for (int64_t c = 0; c < s.columns; ++c) expected.push_back(w(r, c));
  }
  Tensor y({s.rows, s.columns}, 1);
  cobra::Embedding call = {array_of(ids, cobra::INT64, 0), weight, scales, y.array(), s.rows, s.columns, s.rows,
                           words, group, threads};
  CHECK(embedding(&call) == 0);
  expect_close(y.values(), expected, 0, "rows");
  for (const int64_t wrong : {int64_t(-1), s.rows}) {
    ids.back() = wrong;
    CHECK(embedding(&call) == cobra::NO_SUCH_ROW);
  }
}

void linear_bf16(const Shape& s, int64_t threads) {
  Random random(17);
  const Values x = narrowed(random.values(s.batch * s.columns), s.dtype), bias = random.values(s.rows);
  const Values weight = narrowed(random.values(s.rows * s.columns), cobra::BFLOAT16);
  const Values expected = product(s, x, bias, [&](int64_t r, int64_t c) { return weight[size_t(r * s.columns + c)]; });
  Tensor weight_t({s.rows, s.columns}, weight, 2, cobra::BFLOAT16);
  run(s, x, bias, weight_t.array(), absent(), cobra_linear_bf16, expected, 2e-6, threads);
  expect_rows(s, weight_t.array(), absent(), 0, 0, cobra_embedding_bf16, threads,
              [&](int64_t r, int64_t c) { return weight[size_t(r * s.columns + c)]; });
}

void linear_integers(const Shape& s, int bits, int64_t threads) {
  Random random(29);
  const int64_t groups = bits == 4 ? s.columns / s.group : 1, group = s.columns / groups;
  const Values x = narrowed(random.values(s.batch * s.columns), s.dtype), bias = random.values(s.rows);
  const Values scales = narrowed(random.values(s.rows * groups, 0.1, 1), bits == 4 ? cobra::BFLOAT16 : cobra::FLOAT32);
  std::vector<int> integers(size_t(s.rows * s.columns));
  const int least = -(1 << (bits - 1)) + (bits == 8), levels = (1 << bits) - (bits == 8);
  for (int& integer : integers) integer = least + int(random.uniform(0, levels - 1e-3));
  integers[0] = least;
  const Values expected = product(s, x, bias, [&](int64_t r, int64_t c) {
    return integers[size_t(r * s.columns + c)] * scales[size_t(r * groups + c / group)];
  });
  std::vector<int32_t> words = packed(integers, s.rows, s.columns, bits);
  Values ordered(scales.size());
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t g = 0; g < groups; ++g) ordered[interleaved(r, g, s.rows, groups)] = scales[size_t(r * groups + g)];
  Tensor scales_t({s.rows * groups}, ordered, 0, bits == 4 ? cobra::BFLOAT16 : cobra::FLOAT32);
  const cobra::Array weight = array_of(words, cobra::INT32, int64_t(words.size()) / s.rows);
  expect_rows(s, weight, scales_t.array(), int64_t(words.size()) / s.rows, bits == 4 ? s.group : 0,
              bits == 4 ? cobra_embedding_w4 : cobra_embedding_w8, threads, [&](int64_t r, int64_t c) {
                return float(integers[size_t(r * s.columns + c)]) * float(scales[size_t(r * groups + c / group)]);
              });
  // x is rounded to 16 bits
  run(s, x, bias, weight, scales_t.array(), bits == 4 ? cobra_linear_w4 : cobra_linear_w8, expected, 1e-4, threads);
}

// x of integers that keep a scale of 1, also with the largest weights: y is exactly the sums of plain loops.
void exact_integers(const Shape& s, int bits, int64_t threads) {
  Random random(41);
  const int64_t group = bits == 4 ? s.group : 128, groups = (s.columns + group - 1) / group;
  const int least = bits == 8 ? -127 : -8, largest = bits == 8 ? 127 : 7;
  const double corners[] = {32639, -32639, 32511, -32513, 128, 127, -128, -129, -1, 0};
  Values x(size_t(s.batch * s.columns));
  for (int64_t i = 0; i < s.batch * s.columns; ++i) {
    // the first row has the largest sums; the others' groups begin with what sets their scale
    const int64_t b = i / s.columns, c = i % s.columns;
    x[size_t(i)] = b == 0           ? (c / group % 2 ? -32639 : 32639)
                   : c % group == 0 ? (b % 2 ? 32639 : -32639)
                   : c % 3          ? floor(random.uniform(-32639, 32640 - 1e-2))
                                    : corners[size_t(i) % 10];
  }
  std::vector<int> integers(size_t(s.rows * s.columns));
  for (int64_t i = 0; i < s.rows * s.columns; ++i)
    integers[size_t(i)] = i < s.columns ? largest : i < 2 * s.columns ? least : int(random.uniform(least, largest));
  Values expected;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t r = 0; r < s.rows; ++r) {
      float y = 0;
      for (int64_t g = 0; g < groups; ++g) {
        int64_t sum = 0;
        for (int64_t c = g * group; c < s.columns && c < (g + 1) * group; ++c)
          sum += int64_t(x[size_t(b * s.columns + c)]) * integers[size_t(r * s.columns + c)];
        y += float(sum);
      }
      expected.push_back(y);
    }
  std::vector<int32_t> words = packed(integers, s.rows, s.columns, bits);
  const int64_t scale_groups = bits == 4 ? groups : 1;
  Tensor scales({s.rows * scale_groups}, Values(size_t(s.rows * scale_groups), 1));
  const cobra::Array weight = array_of(words, cobra::INT32, int64_t(words.size()) / s.rows);
  run(s, x, Values(size_t(s.rows), 0), weight, scales.array(), bits == 4 ? cobra_linear_w4 : cobra_linear_w8, expected,
      0, threads);
}

// Rows of zeros, of values too small for a scale, of the largest float, with a NaN and with an infinity, each alone and
// all together: what x is does not change its neighbours.
void extreme_rows(int bits, int64_t threads) {
  const int64_t rows = 37, columns = 160, group = 32, groups = bits == 4 ? columns / group : 1;
  const float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max() / 4;
  const float kinds[] = {0, 1e-40f, largest, -largest, NAN, infinity};
  const int64_t batch = 9;
  Values x(size_t(batch * columns), 1), bias(size_t(rows), 3), scales(size_t(rows * groups), 1e-3);
  for (int64_t k = 0; k < 6; ++k)
    for (int64_t c = 0; c < columns; ++c)
      if (k < 4 || c == 33) x[size_t(k * columns + c)] = kinds[k];
  std::vector<int> integers(size_t(rows * columns), 1);
  std::vector<int32_t> words = packed(integers, rows, columns, bits);
  const cobra::Array weight = array_of(words, cobra::INT32, int64_t(words.size()) / rows);
  Tensor scales_t({rows * groups}, scales), bias_t({rows}, bias);
  for (int64_t together : {int64_t(1), int64_t(4), batch})
    for (int64_t first = 0; first < batch; first += together) {
      const int64_t count = first + together > batch ? batch - first : together;
      Tensor x_t({count, columns}, Values(x.begin() + first * columns, x.begin() + (first + count) * columns));
      Tensor y({count, rows});
      const cobra::Linear call = {x_t.array(), weight, scales_t.array(), bias_t.array(), y.array(),
                                  count, columns, rows, group, threads};
      CHECK((bits == 4 ? cobra_linear_w4 : cobra_linear_w8)(&call) == 0);
      const Values all = y.values();
      for (int64_t i = 0; i < count * rows; ++i) {
        const int64_t b = first + i / rows;
        const double expected = 3 + 1e-3 * double(columns) * x[size_t(b * columns)];
        CHECK(b == 4 || b == 5 ? !isfinite(all[size_t(i)])
                               : fabs(all[size_t(i)] - expected) <= 1e-4 * fabs(expected));
      }
    }
}

int main() {
  everywhere("extreme rows", [](int64_t threads) {
    extreme_rows(4, threads);
    extreme_rows(8, threads);
  });
  everywhere("integers", [](int64_t threads) {
    for (int64_t batch : {1, 2, 3, 5, 9}) {
      for (int64_t columns : {3, 128, 258}) exact_integers({batch, 37, columns, 0, cobra::FLOAT32}, 8, threads);
      for (int64_t group : {32, 64, 128}) exact_integers({batch, 37, 256, group, cobra::FLOAT32}, 4, threads);
    }
  });
  for (cobra::DType dtype : {cobra::FLOAT32, cobra::BFLOAT16})
    for (int64_t batch : {1, 3, 8, 9})
      for (int64_t rows : {1, 16, 37}) {
        everywhere("linear_bf16", [&](int64_t threads) {
          for (int64_t columns : {1, 15, 64, 131}) linear_bf16({batch, rows, columns, 0, dtype}, threads);
        });
        everywhere("linear_w8", [&](int64_t threads) {
          for (int64_t columns : {1, 127, 258}) linear_integers({batch, rows, columns, 0, dtype}, 8, threads);
        });
        everywhere("linear_w4", [&](int64_t threads) {
          for (int64_t group : {32, 64, 128}) linear_integers({batch, rows, 256, group, dtype}, 4, threads);
        });
      }
  return finish("linears");
}
