// The C interface: picks the ISA level and passes calls on to it.
#include <atomic>
#include <cstring>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "abi.h"
#include "kernels.h"

#define COBRA_EXPORT extern "C" __attribute__((visibility("default")))

namespace cobra {
namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
  bool (*runs_here)();
};

#if defined(__x86_64__)

bool has_avx2() {
  __builtin_cpu_init();
  // what -march=x86-64-v3 lets the compiler use, as far as GCC 10 can ask; all CPUs with AVX2 and FMA have the rest
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

// slowest first
const Level LEVELS[] = {
    {"base", &base::KERNELS, [] { return true; }},
    {"avx2", &avx2::KERNELS, has_avx2},
    {"avx512", &avx512::KERNELS, has_avx512},
};

#elif defined(__aarch64__)

bool has_dot_products() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

// slowest first
const Level LEVELS[] = {
    {"neon", &neon::KERNELS, [] { return true; }},
    {"neon_dot", &neon_dot::KERNELS, has_dot_products},
};

#else

const Level LEVELS[] = {{"base", &base::KERNELS, [] { return true; }}};

#endif

const Level* fastest() {
  const Level* best = nullptr;
  for (const Level& level : LEVELS)
    if (level.runs_here()) best = &level;
  return best;
}

std::atomic<const Level*> chosen{fastest()};

}  // namespace
}  // namespace cobra

// SHA-256 of the sources, see CMakeLists.txt
COBRA_EXPORT const char* cobra_fingerprint() { return COBRA_FINGERPRINT; }

COBRA_EXPORT const char* cobra_level() { return cobra::chosen.load()->name; }

// The name of the index-th level that this machine can run, slowest first; null past the last.
COBRA_EXPORT const char* cobra_supported_level(int64_t index) {
  for (const cobra::Level& level : cobra::LEVELS)
    if (level.runs_here() && index-- == 0) return level.name;
  return nullptr;
}

// 0, or 1 if this machine cannot run that level or no level is called so.
COBRA_EXPORT int cobra_set_level(const char* name) {
  for (const cobra::Level& level : cobra::LEVELS) {
    if (std::strcmp(level.name, name) == 0 && level.runs_here()) {
      cobra::chosen = &level;
      return 0;
    }
  }
  return 1;
}

#define COBRA_ENTRY(name, Arguments)                                                             \
  COBRA_EXPORT int cobra_##name(const void* arguments) {                                         \
    const cobra::Kernels* kernels = cobra::chosen.load(std::memory_order_relaxed)->kernels;      \
    return kernels->name(*static_cast<const cobra::Arguments*>(arguments));                      \
  }                                                                                              \
  COBRA_EXPORT int64_t cobra_##name##_bytes() { return sizeof(cobra::Arguments); }

COBRA_KERNELS(COBRA_ENTRY)

// Makes calls one after the other: 0, or what the first that failed returned, its number then in `failed`.
COBRA_EXPORT int cobra_run_plan(const cobra::Call* calls, int64_t count, int64_t* failed) {
  for (int64_t i = 0; i < count; ++i)
    if (const int failure = calls[i].kernel(calls[i].arguments)) {
      *failed = i;
      return failure;
    }
  return 0;
}
