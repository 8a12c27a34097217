// The operations of a program that Mamba-2 needs: along a sequence (1, L, ...), each token seeing those before it.
#include "graph.h"

namespace cobra {

ggml_tensor* Graph::ssm_conv(const Operation& o) {
  const Shape &x = o.inputs[0].shape, &filters = o.inputs[1].shape;
  check(x.size() == 3 && x[0] == 1 && filters.size() == 2, "it is not of a sequence (1, L, C) and filters (C, K)");
  const int64_t length = x[1], channels = x[2], taps = filters[1];
  check(filters[0] == channels, "its filters do not fit its input");
  count({channels, taps + length});
  ggml_tensor* tokens = ggml_cont(context_, ggml_transpose(context_, view(o.inputs[0], {length, channels})));
  // zeros before the first
  tokens = ggml_pad_ext(context_, tokens, int(taps - 1), 0, 0, 0, 0, 0, 0, 0);
  return ggml_ssm_conv(context_, tokens, view(o.inputs[1], {channels, taps}));
}

ggml_tensor* Graph::ssm_scan(const Operation& o) {
  const Shape &x = o.inputs[0].shape, &B = o.inputs[3].shape;
  check(x.size() == 4 && x[0] == 1 && B.size() == 4, "it is not of x (1, L, H, P) and B (1, L, G, N)");
  const int64_t length = x[1], heads = x[2], width = x[3], groups = B[2], size = B[3];
  check(B[0] == 1 && B[1] == length && o.inputs[4].shape == B, "its B and C do not fit x");
  check(heads % groups == 0, "its groups do not share its heads");
  // ggml lays the last state behind what it makes
  const int64_t made = count(x), state = count({heads, width, size});
  count({made + state});
  ggml_tensor *zero = numbers(1), *start = ggml_repeat_4d(context_, zero, size, width, heads, 1);
  ggml_tensor* scanned =
      ggml_ssm_scan(context_, start, view(o.inputs[0]), view(o.inputs[1], {1, length, heads}),
                    view(o.inputs[2], {heads, 1}), view(o.inputs[3]), view(o.inputs[4]),
                    ggml_cast(context_, zero, GGML_TYPE_I32), 1);
  return ggml_view_1d(context_, scanned, made, 0);
}

}  // namespace cobra
