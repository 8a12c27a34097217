// Work shared between threads, and the state of the floating-point unit while it runs.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "vec.h"

namespace cobra {
namespace COBRA_NS {

// Denormals are zero while this object lives: a decayed state full of them is 30 times slower.
class FlushDenormals {
 public:
  FlushDenormals() : before_(read()) { write(before_ | kFlush); }
  ~FlushDenormals() { write(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  typedef unsigned Word;
  static constexpr Word kFlush = 0x8040;  // FTZ and DAZ of MXCSR
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
  typedef uint64_t Word;
  static constexpr Word kFlush = uint64_t(1) << 24;  // FZ of FPCR
  static Word read() {
    Word word;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { __asm__ __volatile__("msr fpcr, %0" : : "r"(word)); }
#else
  typedef unsigned Word;
  static constexpr Word kFlush = 0;
  static Word read() { return 0; }
  static void write(Word) {}
#endif
  Word before_;
};

// The number of workers that parallel_for starts for n items.
inline int workers(int64_t threads, int64_t n) { return int(most<int64_t>(1, least(threads, n))); }

// f(begin, end, worker) over a split of 0..n into one range per worker, denormals flushed.
template <typename F>
inline void parallel_for(int64_t threads, int64_t n, F f) {
  const int team = workers(threads, n);
  const auto run = [&](int64_t worker, int64_t size) {
    FlushDenormals guard;
    const int64_t begin = n * worker / size, end = n * (worker + 1) / size;
    if (begin < end) f(begin, end, int(worker));
  };
  if (team == 1) {
    run(0, 1);
    return;
  }
#ifdef _OPENMP
  // the runtime may grant fewer threads than asked for: split by what there is
#pragma omp parallel num_threads(team)
  run(omp_get_thread_num(), omp_get_num_threads());
#else
  run(0, 1);
#endif
}

// Memory for floats, aligned to a cache line, one share per worker; not initialized.
class Scratch {
 public:
  Scratch(int64_t floats, int64_t shares = 1) : share_(round_up(floats, 16)) {
    void* p = nullptr;
    // 64 more, so that an empty request is a valid one
    if (posix_memalign(&p, 64, size_t(share_ * shares) * sizeof(float) + 64) == 0) data_ = static_cast<float*>(p);
  }
  ~Scratch() { free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  bool ok() const { return data_ != nullptr; }
  float* share(int64_t i = 0) const { return data_ + i * share_; }

 private:
  int64_t share_;
  float* data_ = nullptr;
};

}  // namespace COBRA_NS
}  // namespace cobra
