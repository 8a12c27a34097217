// Attention of one query against its definition in double precision.
#include "native.h"

using namespace native;

struct Shape {
  int64_t groups, shared, length, head_dim;
  cobra::DType dtype;
};

void attention(const Shape& s, int64_t threads) {
  constexpr int64_t BATCH = 2;
  constexpr double SCALE = 0.4;
  Random random(21);
  const int64_t heads = s.groups * s.shared, past = BATCH * s.groups * s.length * s.head_dim;
  const Values q = random.values(BATCH * heads * s.head_dim, -3, 3);
  const Values keys = narrowed(random.values(past, -3, 3), s.dtype), values = narrowed(random.values(past), s.dtype);
  std::vector<int64_t> starts{0, s.length / 3};
  Values expected(q.size());
  for (int64_t i = 0; i < BATCH * heads; ++i) {
    const int64_t from = i / s.shared * s.length, start = starts[size_t(i / heads)];
    Values weights(size_t(s.length));
    double total = 0;
    for (int64_t t = start; t < s.length; ++t) {
      double score = 0;
      for (int64_t p = 0; p < s.head_dim; ++p)
        score += q[size_t(i * s.head_dim + p)] * keys[size_t((from + t) * s.head_dim + p)];
      total += weights[size_t(t)] = exp(SCALE * score);
    }
    for (int64_t t = start; t < s.length; ++t)
      for (int64_t p = 0; p < s.head_dim; ++p)
        expected[size_t(i * s.head_dim + p)] +=
            weights[size_t(t)] / total * values[size_t((from + t) * s.head_dim + p)];
  }

  const std::vector<int64_t> dims{BATCH, s.groups, s.length, s.head_dim};
  Tensor q_t({BATCH, heads, s.head_dim}, q), keys_t(dims, keys, 3, s.dtype), values_t(dims, values, 0, s.dtype);
  Tensor y({BATCH, heads, s.head_dim}, 2);
  const cobra::Array from = {starts.data(), cobra::INT64, {0, 0, 0}};
  const cobra::Attention call = {q_t.array(), keys_t.array(), values_t.array(), from, y.array(), BATCH, heads, s.groups,
                                 s.length, s.head_dim, threads, SCALE};
  CHECK(cobra_decode_attention(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "attention");
}

int main() {
  for (cobra::DType dtype : {cobra::FLOAT32, cobra::BFLOAT16})
    for (int64_t shared : {1, 3})
      for (int64_t head_dim : {1, 7, 32, 80})
        for (int64_t length : {1, 17, 300, 700})
          everywhere("decode_attention",
                     [&](int64_t threads) { attention({2, shared, length, head_dim, dtype}, threads); });
  return finish("attention");
}
