// The structures of the scans, as those of abi.h; to be included by it.
#pragma once

namespace cobra {

// The SSD takes sequences of up to SSD_WHOLE tokens as one chunk, longer ones by SSD_CHUNK; by SSD_UNKEPT where no states
// are left for a backward pass, whose memory the larger chunks halve.
constexpr int64_t SSD_CHUNK = 64, SSD_UNKEPT = 32, SSD_WHOLE = 128;
// Tokens between two states that the forward pass leaves for the backward pass.
constexpr int64_t SCAN_CHUNK = 32;
// Widths of the SSD's saved states are rounded up to this.
constexpr int64_t STATE_PAD = 16;

// A scan visits tokens along the sequence; down the columns of a grid of `grid_height` rows, if that is not 1; from the
// last to the first, if `reversed`. Tokens under a False mask are not visited, and results there are zeros. Arrays are in
// the order of the sequence, states in that of the visits.

// Mamba-2's scan. B batch, L tokens, H heads, P head width, G groups, N state.
struct SsdForward {
  Array x, dt, A, B, C;                       // (B, L, H, P) (B, L, H) (H) (B, L, G, N) (B, L, G, N)
  Array D, dt_bias, initial_state;            // (H) (H) (B, H, P, N), or (S, H, P, N) with
  Array initial_rows;                         // (B) int64, the row of it before each sequence, or absent
  Array seq_idx, mask;                        // (B, L) int32 or int64, (B, L) bool
  Array y, final_state;                       // (B, L, H, P), (B, H, P, N) in fp32 or absent
  // (B, H, chunks, N and P padded), fp32, or absent: the state before each chunk, but for that before the first
  // where there is no initial one; the backward pass then gets no dinitial_state
  Array chunk_states;
  int64_t batch, length, heads, head_dim, groups, d_state, softplus, reversed, grid_height, threads;
};

struct SsdBackward {
  Array dy, dfinal_state;                     // the latter may be absent
  Array x, dt, A, B, C, D, dt_bias, seq_idx, mask, chunk_states;
  Array dx, ddt, dB, dC;                      // in the dtypes of their inputs
  Array dA, dD, ddt_bias;                     // in fp32, dense; the last two may be absent
  Array dinitial_state;                       // likewise; absent if the scan started from nothing
  int64_t batch, length, heads, head_dim, groups, d_state, softplus, reversed, grid_height, threads;
};

// Mamba-1's scan. B batch, L tokens, D channels, G groups, N state.
struct ScanForward {
  Array u, delta, A, B, C;                    // (B, L, D) (B, L, D) (D, N) (B, L, G, N) (B, L, G, N)
  Array D, z, delta_bias, initial_state;      // (D) (B, L, D) (D) (B, D, N)
  Array seq_idx, mask;                        // (B, L) int32 or int64, (B, L) bool
  Array y, final_state;                       // (B, L, D), (B, D, N) in fp32
  Array chunk_states;                         // (B, ceil(L / SCAN_CHUNK), N, D), fp32, or absent
  int64_t batch, length, channels, groups, d_state, softplus, reversed, grid_height, threads;
};

struct ScanBackward {
  Array dy, dfinal_state;                     // the latter may be absent
  Array u, delta, A, B, C, D, z, delta_bias, seq_idx, mask, chunk_states;
  Array du, ddelta, dB, dC, dz;               // in the dtypes of their inputs; dz goes with z
  Array dA, dD, ddelta_bias, dinitial_state;  // in fp32, dense; the last three may be absent
  int64_t batch, length, channels, groups, d_state, softplus, reversed, grid_height, threads;
};

// name of the kernel, its structure
#define COBRA_SCAN_KERNELS(X)               \
  X(ssd_chunk_scan, SsdForward)             \
  X(ssd_chunk_scan_backward, SsdBackward)   \
  X(selective_scan, ScanForward)            \
  X(selective_scan_backward, ScanBackward)

}  // namespace cobra
