// What Python hands over and may call: plain C structures, the same for every ISA level.
//
// A kernel takes a pointer to its structure: arrays, then sizes, then real numbers, all in parts of 8 bytes, so
// that Python packs it from three lists (cobra/kernels/cpu/library.py). The number of threads is the last size.
// It returns 0, or a Failure. Python has checked shapes and dtypes.
//
// Forward and backward of an op share a structure: results y become their gradients, read by the backward.
#pragma once
#include <stdint.h>

namespace cobra {

enum DType : int64_t { FLOAT32 = 0, BFLOAT16 = 1, INT32 = 2, INT64 = 3, BOOL = 4 };

// A tensor whose last dimension is contiguous; null data is an absent argument.
// Strides count elements, of every dimension but the last; those that it does not have are 0.
struct Array {
  void* data;
  int64_t dtype;
  int64_t stride[3];
};

// Causal depthwise convolution: B batch, L tokens, C channels, K taps; visits as in scan_abi.h. The backward takes
// an absent gradient of the final state as zeros.
struct Conv1d {
  Array x, weight, bias, initial_state, seq_idx, mask;  // (B, L, C) (C, K) (C) (B, C, K - 1) (B, L) (B, L)
  Array y, final_state;                                 // (B, L, C) (B, C, K - 1)
  Array dx, dweight, dbias, dinitial_state;             // (B, L, C) (B, K, C) (B, C) (B, C, K - 1)
  int64_t batch, length, channels, taps, silu, reversed, grid_height, threads;
};

struct Conv1dUpdate {
  Array x, state, weight, bias, y;  // (B, C) (B, C, K - 1) (C, K) (C) (B, C)
  int64_t batch, channels, taps, silu, threads;
};

// total = x + residual, y = total / rms(total) * weight, for R rows of width D.
// The backward takes the total as x and returns the gradient of it; dweight is summed over each `block` of rows.
struct Norm {
  Array x, residual, weight, y, total, dx, dweight;  // (R, D) (R, D) (D) (R, D) (R, D) (R, D) (R / block, D)
  int64_t rows, width, block, threads;
  double eps;
};

// total = x + parallel + residual, y = (total - mean) / deviation * weight + bias, for R rows of width D.
struct LayerNorm {
  Array x, parallel, residual, weight, bias, y, total;  // (R, D) (R, D) (R, D) (D) (D) (R, D) (R, D)
  int64_t rows, width, threads;
  double eps;
};

// y = norm(x silu(z)) weight, each `group` of channels by itself.
struct GatedNorm {
  Array x, z, weight, y, dx, dz, dweight;
  int64_t rows, width, group, block, threads;
  double eps;
};

// One token of decoding. Mamba-2: H heads of P channels, one decay a head. Mamba-1: H channels, P = 1, N decays.
struct StateUpdate {
  Array state, x, dt, A;         // (B, H, P, N) (B, H, P) (B, H) (H) or (H, N)
  Array B, C, D, z, dt_bias, y;  // (B, G, N) (B, G, N) (H) (B, H, P) (H) (B, H, P)
  int64_t batch, heads, head_dim, d_state, groups, mamba2, softplus, threads;
};

struct MambaStep {
  Array xz, conv_state, ssm_state;  // (B, 2 C) (B, C, K - 1) (B, C, N)
  Array conv_weight, conv_bias, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D, y;
  int64_t batch, channels, d_state, dt_rank, taps, threads;
};

struct Mamba2Step {
  Array zxbcdt, conv_state, ssm_state;  // (B, 2 H P + 2 G N + H) (B, H P + 2 G N, K - 1) (B, H, P, N)
  Array conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, y;
  int64_t batch, heads, head_dim, d_state, groups, taps, threads;
  double eps;
};

// y = x W^T + bias. W is (rows, columns) in bf16, or packed (cobra/kernels/quantize.py), then with scales.
struct Linear {
  Array x, weight, scales, bias, y;  // (B, columns), see above, (rows) (B, rows)
  int64_t batch, columns, rows, group, threads;
};

// y[i] = row ids[i] of W, which is as in Linear; a packed row has `words` words.
struct Embedding {
  Array ids, weight, scales, y;  // (count) int64, see above, (count, columns)
  int64_t count, columns, rows, words, group, threads;
};

// Attention of one query a sequence: row b reads its first lengths[b] tokens, all without lengths; H heads, G groups of
// keys and values. attention_step first writes a token k, v behind those, so there must be room; rotation is a row of
// cosines and sines of R / 2 angles for each position of a sequence.
struct Attention {
  Array q, keys, values, lengths, y;  // (B, H, P) (B, G, T, P) (B, G, T, P) (B) int64 (B, H, P)
  Array k, v, rotation;               // (B, G, P) (B, G, P) (T, R)
  int64_t batch, heads, groups, length, head_dim, rotated, threads;
  double scale;
};

// lengths += 1
struct Advance {
  Array lengths;  // (B) int64
  int64_t batch, threads;
};

// y = gelu(x), by its tanh form (arXiv 1606.08415)
struct Activation {
  Array x, y;  // (R, D)
  int64_t rows, width, threads;
};

// y = silu(gate) up
struct Gate {
  Array gate, up, y;  // (R, D)
  int64_t rows, width, threads;
};

// What a kernel returns where it does not return 0.
enum Failure { OUT_OF_MEMORY = 1, NO_ROOM = 2, NO_SUCH_ROW = 3 };

// A kernel (one of the functions cobra_..., by its address) and its structure; a plan is an array of them.
struct Call {
  int (*kernel)(const void*);
  const void* arguments;
};

}  // namespace cobra

// name of the kernel, its structure
#define COBRA_LAYER_KERNELS(X)           \
  X(causal_conv1d, Conv1d)               \
  X(causal_conv1d_backward, Conv1d)      \
  X(causal_conv1d_update, Conv1dUpdate)  \
  X(rms_norm, Norm)                      \
  X(rms_norm_backward, Norm)             \
  X(rms_norm_gated, GatedNorm)           \
  X(rms_norm_gated_backward, GatedNorm)  \
  X(add_layer_norm, LayerNorm)           \
  X(selective_state_update, StateUpdate) \
  X(mamba_step, MambaStep)               \
  X(mamba2_step, Mamba2Step)             \
  X(linear_bf16, Linear)                 \
  X(linear_w8, Linear)                   \
  X(linear_w4, Linear)                   \
  X(embedding_bf16, Embedding)           \
  X(embedding_w8, Embedding)             \
  X(embedding_w4, Embedding)             \
  X(decode_attention, Attention)         \
  X(attention_step, Attention)           \
  X(advance, Advance)                    \
  X(silu_mul, Gate)                      \
  X(gelu_tanh, Activation)
