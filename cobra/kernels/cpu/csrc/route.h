// Which tokens a scan or a convolution visits, and in which order. Those under a False mask are not visited: whatever
// they hold reaches nothing, and a row gives what it gives without them.
#pragma once

#include <stdint.h>
#include <string.h>

#include "arrays.h"
#include "threads.h"

namespace cobra {
namespace COBRA_NS {

COBRA_INLINE int64_t sequence(const Array& seq_idx, int64_t b, int64_t t) {
  const int64_t at = b * seq_idx.stride[0] + t;
  return seq_idx.dtype == INT64 ? static_cast<const int64_t*>(seq_idx.data)[at]
                                : static_cast<const int32_t*>(seq_idx.data)[at];
}

COBRA_INLINE bool is_masked(const Array& mask, int64_t b, int64_t t) {
  return !static_cast<const uint8_t*>(mask.data)[b * mask.stride[0] + t];
}

// The visits of a row of the batch.
struct Visits {
  const int32_t* tokens;  // null where all are visited
  int64_t length, reversed, grid_height;

  // The token of a visit, 0 .. length: along the sequence, or down the columns of a grid one after the other.
  COBRA_INLINE int64_t token(int64_t visit) const {
    if (tokens) return tokens[visit];
    if (reversed) visit = length - 1 - visit;
    // most scans go along the sequence: spare them the divisions
    if (grid_height == 1) return visit;
    const int64_t width = length / grid_height;
    return visit % grid_height * width + visit / grid_height;
  }
};

// The visits of all rows: under a mask each has a list of its own.
class Route {
 public:
  template <typename Args>
  explicit Route(const Args& a)
      : all_{nullptr, a.length, a.reversed, a.grid_height},
        // their number, they themselves, and one that may be asked for behind the last
        size_(present(a.mask) ? a.length + 2 : 0),
        lists_(a.batch * size_) {
    if (size_ == 0 || !ok()) return;
    parallel_for(a.threads, a.batch, [&](int64_t begin, int64_t end, int) {
      for (int64_t b = begin; b < end; ++b) {
        int32_t *count = list(b), *tokens = count + 1;
        *count = 0;
        for (int64_t visit = 0; visit < a.length; ++visit) {
          const int64_t token = all_.token(visit);
          if (!is_masked(a.mask, b, token)) tokens[(*count)++] = int32_t(token);
        }
        tokens[*count] = 0;
      }
    });
  }

  bool ok() const { return lists_.ok(); }
  Visits row(int64_t b) const { return size_ ? Visits{list(b) + 1, *list(b), 0, 1} : all_; }

 private:
  int32_t* list(int64_t b) const { return reinterpret_cast<int32_t*>(lists_.share()) + b * size_; }

  Visits all_;
  int64_t size_;
  Scratch lists_;
};

// Zeros in a result (B, L, rows, width) at the tokens that are not visited.
template <typename Args>
inline void clear_masked(const Args& a, const Array& result, int64_t rows, int64_t width) {
  if (!present(a.mask) || !present(result)) return;
  const int64_t bytes = result.dtype == BFLOAT16 ? 2 : 4;
  parallel_for(a.threads, a.batch * a.length, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / a.length, t = i % a.length;
      if (!is_masked(a.mask, b, t)) continue;
      char* token = static_cast<char*>(result.data) + (b * result.stride[0] + t * result.stride[1]) * bytes;
      for (int64_t row = 0; row < rows; ++row) memset(token + row * result.stride[2] * bytes, 0, size_t(width * bytes));
    }
  });
}

}  // namespace COBRA_NS
}  // namespace cobra
