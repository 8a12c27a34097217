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
  std::vector<int64_t> lengths{s.length, s.length - s.length / 3};
  Values expected(q.size());
  for (int64_t i = 0; i < BATCH * heads; ++i) {
    const int64_t from = i / s.shared * s.length, length = lengths[size_t(i / heads)];
    Values weights(size_t(s.length));
    double total = 0;
    for (int64_t t = 0; t < length; ++t) {
      double score = 0;
      for (int64_t p = 0; p < s.head_dim; ++p)
        score += q[size_t(i * s.head_dim + p)] * keys[size_t((from + t) * s.head_dim + p)];
      total += weights[size_t(t)] = exp(SCALE * score);
    }
    for (int64_t t = 0; t < length; ++t)
      for (int64_t p = 0; p < s.head_dim; ++p)
        expected[size_t(i * s.head_dim + p)] +=
            weights[size_t(t)] / total * values[size_t((from + t) * s.head_dim + p)];
  }

  const std::vector<int64_t> dims{BATCH, s.groups, s.length, s.head_dim};
  Tensor q_t({BATCH, heads, s.head_dim}, q), keys_t(dims, keys, 3, s.dtype), values_t(dims, values, 0, s.dtype);
  Tensor y({BATCH, heads, s.head_dim}, 2);
  const cobra::Attention call = {q_t.array(), keys_t.array(), values_t.array(), array_of(lengths, cobra::INT64, 0),
                                 y.array(), {}, {}, {}, BATCH, heads, s.groups, s.length, s.head_dim, 0, threads, SCALE};
  CHECK(cobra_decode_attention(&call) == 0);
  expect_close(y.values(), expected, 1e-5, "attention");
}

// A step on pasts without their last tokens gives what attention over all of them gives, here with angles of 0.
void step(const Shape& s, int64_t threads) {
  constexpr int64_t BATCH = 2;
  Random random(22);
  const int64_t heads = s.groups * s.shared, half = s.head_dim / 2, rows = BATCH * s.groups;
  const Values q = random.values(BATCH * heads * s.head_dim, -3, 3);
  Values keys = narrowed(random.values(rows * s.length * s.head_dim, -3, 3), s.dtype);
  Values values = narrowed(random.values(rows * s.length * s.head_dim), s.dtype);
  std::vector<int64_t> lengths{s.length - s.length / 3, s.length};
  const std::vector<int64_t> dims{BATCH, s.groups, s.length, s.head_dim};
  Tensor q_t({BATCH, heads, s.head_dim}, q), y({BATCH, heads, s.head_dim}, 2), expected({BATCH, heads, s.head_dim}, 2);
  Tensor all_keys(dims, keys, 3, s.dtype), all_values(dims, values, 0, s.dtype);
  const cobra::Array counts = array_of(lengths, cobra::INT64, 0);
  const cobra::Attention whole = {q_t.array(), all_keys.array(), all_values.array(), counts, expected.array(), {}, {},
                                  {}, BATCH, heads, s.groups, s.length, s.head_dim, 0, threads, 0.4};
  CHECK(cobra_decode_attention(&whole) == 0);

  Values k, v, angles(size_t(s.length * 2 * half));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < s.head_dim; ++c) {
      const size_t last = size_t((i * s.length + lengths[size_t(i / s.groups)] - 1) * s.head_dim + c);
      k.push_back(keys[last]);
      v.push_back(values[last]);
      keys[last] = values[last] = NAN;
    }
  for (int64_t t = 0; t < s.length; ++t)
    for (int64_t c = 0; c < half; ++c) angles[size_t(t * 2 * half + c)] = 1;
  const std::vector<int64_t> token{BATCH, s.groups, s.head_dim};
  Tensor k_t(token, k), v_t(token, v), turns({s.length, 2 * half}, angles);
  Tensor keys_t(dims, keys, 3, s.dtype), values_t(dims, values, 0, s.dtype);
  for (int64_t& length : lengths) --length;
  const std::vector<int64_t> before = lengths;
  const cobra::Attention call = {q_t.array(), keys_t.array(), values_t.array(), counts, y.array(), k_t.array(),
                                 v_t.array(), turns.array(), BATCH, heads, s.groups, s.length, s.head_dim, 2 * half,
                                 threads, 0.4};
  CHECK(cobra_attention_step(&call) == 0);
  expect_close(y.values(), expected.values(), 1e-6, "a step");
  expect_close(keys_t.values(), all_keys.values(), 0, "its key");
  const cobra::Advance advance = {counts, BATCH, threads};
  CHECK(cobra_advance(&advance) == 0 && lengths[0] == before[0] + 1 && lengths[1] == before[1] + 1);
  CHECK(cobra_attention_step(&call) == cobra::NO_ROOM);
}

int main() {
  for (cobra::DType dtype : {cobra::FLOAT32, cobra::BFLOAT16})
    for (int64_t shared : {1, 3, 15})
      for (int64_t head_dim : {1, 7, 32, 80})
        for (int64_t length : {1, 17, 300, 700})
          everywhere("decode_attention",
                     [&](int64_t threads) {
                       attention({2, shared, length, head_dim, dtype}, threads);
                       if (head_dim > 1) step({2, shared, length, head_dim, dtype}, threads);
                     });
  return finish("attention");
}
